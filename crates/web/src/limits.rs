//! How much of a request is taken, and how long it may last.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;

use crate::problem::Problem;

/// The largest body. The clients of 2010 could send 1,023 bytes.
pub const MAX_BODY: usize = 8 * 1024;
/// What is read of a body that is too large and thrown away, so that its sender gets to read the answer: one that
/// is still sending when the connection closes sees a reset instead.
const MAX_DRAIN: usize = 256 * 1024;
/// From the end of the headers to the answer, the reading of the body included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the whole body, within the limits, and lets the handler work, within the time.
pub(crate) async fn enforce(request: Request, next: Next) -> Response {
    let work = async {
        let (parts, body) = request.into_parts();
        match read(body).await {
            Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
            Err(problem) => problem.into_response(),
        }
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
        Ok(response) => response,
        Err(_) => Problem::timeout().into_response(),
    }
}

async fn read(mut body: Body) -> Result<Bytes, Problem> {
    let mut kept = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::broken_body(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length <= MAX_BODY {
            kept.extend_from_slice(data);
        } else if length > MAX_DRAIN {
            break;
        }
    }
    if length > MAX_BODY { Err(Problem::too_much_data()) } else { Ok(kept.into()) }
}
