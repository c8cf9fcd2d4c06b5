//! Dates as texts.

use tempalias_alias::UnixTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime};

/// As JavaScript's `Date` writes itself: what the clients of 2010 were sent.
pub(crate) fn iso(when: UnixTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    calendar(when).format(&format).unwrap_or_default()
}

/// For people, in UTC.
pub(crate) fn human(when: UnixTime) -> String {
    let format = format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");
    calendar(when).format(&format).unwrap_or_default()
}

/// Reads `2026-11-22`, `2026-11-22T10:00`, `2026-11-22T10:00:00` (all UTC) and RFC 3339 with any offset.
pub(crate) fn parse(text: &str) -> Option<UnixTime> {
    let date = format_description!("[year]-[month]-[day]");
    let minutes = format_description!("[year]-[month]-[day]T[hour]:[minute]");
    let seconds = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let local = |text| {
        let midnight = Date::parse(text, &date).map(Date::midnight);
        midnight
            .or_else(|_| PrimitiveDateTime::parse(text, &minutes))
            .or_else(|_| PrimitiveDateTime::parse(text, &seconds))
    };
    let moment =
        OffsetDateTime::parse(text, &Rfc3339).or_else(|_| local(text).map(PrimitiveDateTime::assume_utc));
    // Before 1970 is simply long past.
    moment
        .ok()
        .map(|at| UnixTime::from_millis(u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)))
}

fn calendar(when: UnixTime) -> OffsetDateTime {
    let nanos = i128::from(when.millis()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or_else(|_| {
        PrimitiveDateTime::MAX.replace_nanosecond(0).unwrap_or(PrimitiveDateTime::MAX).assume_utc()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_they_are_written_and_in_looser_forms() {
        let noon = UnixTime::from_secs(1_795_348_800);
        assert_eq!(iso(noon), "2026-11-22T12:00:00.000Z");
        assert_eq!(human(noon), "22 November 2026, 12:00 UTC");
        for same in [
            "2026-11-22T12:00:00.000Z",
            "2026-11-22T13:00:00+01:00",
            "2026-11-22T12:00",
            "2026-11-22T12:00:00",
        ] {
            assert_eq!(parse(same), Some(noon), "{same}");
        }
        assert_eq!(parse("2026-11-22"), Some(UnixTime::from_secs(1_795_305_600)));
        assert_eq!(parse("1969-01-01"), Some(UnixTime::from_secs(0)));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for bad in ["tomorrow", "22.11.2026", "2026-13-01", "2026-02-30", "2026-11-22T25:00", "1795348800"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert!(iso(UnixTime::from_millis(u64::MAX)).starts_with("9999-12-31"));
    }
}
