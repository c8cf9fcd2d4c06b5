//! The mark of a store that is being copied into: which run of the copy has claimed it last, and how far it has come.
//! A run that was overtaken changes nothing of it any more (docs/decisions/020).

use redis::{RedisError, Value, cmd};
use tempalias_alias::RowKey;

use super::greet::Unfit;
use super::keys::Names;
use super::link::Pipe;
use super::reply::text;
use super::script::{COPYING_CLAIM, COPYING_NOTE};
use crate::copy::{Mark, Origin};

/// In place of a row's key: the store was claimed, and it is not known yet whether it may be copied into.
const CLAIMED: &str = "claimed";

/// A mark as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) mark: Mark,
    /// The marker of the run that has claimed the store last.
    pub(super) run: String,
    /// Whether the store was seen to be empty under that run's markers: what is there now is of this copy.
    pub(super) is_begun: bool,
}

impl Standing {
    /// Of a copy that begins.
    pub(super) fn first(from: &Origin, run: &str) -> Self {
        Self { mark: Mark::first(from), run: run.to_owned(), is_begun: false }
    }

    fn to_text(&self) -> String {
        let after = match self.mark.after {
            _ if !self.is_begun => CLAIMED.to_owned(),
            after => after.map(|key| key.to_string()).unwrap_or_default(),
        };
        format!("{after}\n{}\n{}\n{}", self.run, self.mark.from.id, self.mark.from.shown)
    }

    fn of_text(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let mut lines = text.splitn(4, '\n');
        let mut line = || lines.next().unwrap_or_default().to_owned();
        let (position, run, id, shown) = (line(), line(), line(), line());
        let after = u128::from_str_radix(&position, 16).ok().map(|key| RowKey(key.to_be_bytes()));
        let mark = Mark { from: Origin { id, shown }, after };
        Some(Self { mark, run, is_begun: position != CLAIMED })
    }
}

/// The mark of the copy into this store, if one is unfinished.
pub(super) async fn read(pipe: &mut Pipe, names: &Names) -> Result<Option<Standing>, RedisError> {
    let value = pipe.ask(cmd("GET").arg(names.copying())).await?;
    Ok(of_value(&value))
}

/// Claims the store for a run, if what was seen there still stands. What stands there then.
pub(super) async fn claim(
    pipe: &mut Pipe,
    names: &Names,
    seen: Option<&Standing>,
    ours: &Standing,
) -> Result<Option<Standing>, RedisError> {
    let (seen, ours) = (seen.map(Standing::to_text).unwrap_or_default(), ours.to_text());
    let answer = pipe.run(&COPYING_CLAIM, &[names.copying()], &[seen.as_bytes(), ours.as_bytes()]).await?;
    Ok(of_value(&answer))
}

/// Notes how far the run has come, if it is the last that has claimed the store.
pub(super) async fn note(pipe: &mut Pipe, names: &Names, ours: &Standing) -> Result<(), RedisError> {
    let args = [ours.run.as_bytes(), &ours.to_text().into_bytes()];
    pipe.run(&COPYING_NOTE, &[names.copying()], &args).await.map(drop)
}

/// Takes the mark away, if the run is the last that has claimed the store; whether there was one.
pub(super) async fn end(pipe: &mut Pipe, names: &Names, run: &str) -> Result<bool, RedisError> {
    let answer = pipe.run(&COPYING_NOTE, &[names.copying()], &[run.as_bytes()]).await?;
    Ok(text(&answer) != "gone")
}

fn of_value(value: &Value) -> Option<Standing> {
    Standing::of_text(&text(value))
}

/// What is said of a store that is half a copy.
pub(super) fn half_a_copy(from: &str) -> String {
    format!("it holds an unfinished copy of {from}: run `tempalias db copy` again to finish it")
}

/// No half copy is served.
pub(super) async fn refuse_if_unfinished(pipe: &mut Pipe, names: &Names) -> Result<(), Unfit> {
    match read(pipe, names).await? {
        None => Ok(()),
        Some(standing) => Err(Unfit::Wrong(half_a_copy(&standing.mark.from.shown))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_its_text() {
        let from = Origin { id: "sqlite 1 /a".to_owned(), shown: "sqlite:/a\nb".to_owned() };
        let claimed = Standing::first(&from, "2 ff 9");
        let begun = Standing { is_begun: true, ..claimed.clone() };
        let mark = Mark { from, after: Some(RowKey([0xab; 16])) };
        let further = Standing { mark, ..begun.clone() };
        for standing in [claimed, begun, further] {
            assert_eq!(Standing::of_text(&standing.to_text()), Some(standing));
        }
        assert_eq!(Standing::of_text(""), None);
    }
}
