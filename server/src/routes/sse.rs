//! An inference as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::time::{Instant, timeout_at};

use crate::ipc::Event;
use crate::stream::{Inference, Reader};
use crate::wire::openai::ChunkWriter;

/// One newline: with two, clients that remember event ids would see an empty event.
const HEARTBEAT: Bytes = Bytes::from_static(b": hb\n");
/// Events that are ready together go out together, up to this many bytes.
const MAX_WRITE_BYTES: usize = 64 * 1024;

/// A body of server-sent events. Dropping it is leaving.
pub(super) struct SseStream {
    reader: Option<Reader>,
    writer: ChunkWriter,
    heartbeat: Duration,
}

impl SseStream {
    /// The events of an inference from a number on; `reader` must not have been read from.
    pub(super) fn new(reader: Reader, from: u64, heartbeat: Duration) -> Self {
        let inference = reader.inference();
        let writer = ChunkWriter::new(inference.meta.clone(), &inference.request, from);
        Self { reader: Some(reader), writer, heartbeat }
    }

    /// Writes what is there already; whether that is all there will ever be.
    pub(super) fn catch_up(&mut self) -> bool {
        while let Some((choice, event)) = self.reader.as_mut().and_then(Reader::next_ready) {
            self.write(choice, event);
        }
        self.end_if_finished();
        self.reader.is_none()
    }

    /// Whether nothing that was written waits to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.writer.len() == 0
    }

    /// Events of an inference so far. Counting is not reading.
    pub(super) fn count(inference: &Inference) -> u64 {
        let mut writer = ChunkWriter::new(inference.meta.clone(), &inference.request, u64::MAX);
        let (events, finished) = inference.buffer.read().ready();
        for (choice, event) in events {
            if let Err(error) = writer.event(choice, event) {
                writer.fail(&error);
                return writer.next_number();
            }
        }
        if finished {
            writer.end();
        }
        writer.next_number()
    }

    /// The answer that sends them.
    pub(super) fn into_response(self) -> Response {
        let writes = unfold(self, |mut sse| async move {
            let write = sse.next_write().await?;
            Some((Ok::<_, Infallible>(write), sse))
        });
        let mut response = Response::new(Body::from_stream(writes));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
        // Without it, nginx keeps the stream back until its buffer is full.
        let buffering = HeaderName::from_static("x-accel-buffering");
        headers.insert(buffering, HeaderValue::from_static("no"));
        response
    }

    /// The next bytes; none after the end.
    async fn next_write(&mut self) -> Option<Bytes> {
        let silence = Instant::now() + self.heartbeat;
        while self.is_empty() {
            let reader = self.reader.as_mut()?;
            let Ok(mut next) = timeout_at(silence, reader.next()).await else {
                return Some(HEARTBEAT);
            };
            while let Some((choice, event)) = next {
                self.write(choice, event);
                if MAX_WRITE_BYTES <= self.writer.len() {
                    return Some(self.writer.take());
                }
                next = self.reader.as_mut().and_then(Reader::next_ready);
            }
            self.end_if_finished();
        }
        Some(self.writer.take())
    }

    fn write(&mut self, choice: usize, event: Event) {
        if let Err(error) = self.writer.event(choice, event) {
            self.writer.fail(&error);
            self.reader = None;
        }
    }

    fn end_if_finished(&mut self) {
        if self.reader.as_mut().is_some_and(Reader::is_finished) {
            self.writer.end();
            self.reader = None;
        }
    }
}
