//! A client of any OpenAI endpoint, as far as commands need one.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::Value;

use super::CliError;

/// Longest error body shown.
const SHOWN_ERROR_CHARS: usize = 500;

/// A way to one server.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// `event:`, if there is one.
    pub(crate) name: Option<String>,
    /// `data:` lines, joined.
    pub(crate) data: String,
}

/// Events of a response, as they come.
#[derive(Debug)]
pub(crate) struct SseReader {
    response: Response,
    parser: SseParser,
}

/// From bytes to events; comments are left out.
#[derive(Debug, Default)]
struct SseParser {
    line: Vec<u8>,
    name: Option<String>,
    data: Vec<String>,
    ready: std::collections::VecDeque<SseEvent>,
}

impl Client {
    /// A client of the server at `url`, with or without `/v1`.
    pub(crate) fn new(url: &str, key: Option<String>) -> Result<Self, CliError> {
        let usage = |message: String| {
            CliError::usage(message).hint("write http://HOST:PORT, as the server prints it")
        };
        let parsed = url::Url::parse(url).map_err(|e| usage(format!("not a URL: {url}: {e}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(usage(format!("not an http URL: {url}")));
        }
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            // Some servers close a connection just when it would be used again.
            .pool_max_idle_per_host(0)
            .no_proxy()
            .build()
            .map_err(|e| CliError::failed(format!("the HTTP client does not start: {e}")))?;
        Ok(Self { http, base, key })
    }

    /// Where it talks to.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// `GET`, answered in JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<(StatusCode, Value), CliError> {
        let request = self.http.get(format!("{}{path}", self.base));
        json(self.send(request).await?).await
    }

    /// `POST` of JSON, answered in JSON.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<(StatusCode, Value), CliError> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        json(self.send(request).await?).await
    }

    /// `POST` of JSON, answered in server-sent events; another status is an error.
    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Result<SseReader, CliError> {
        let request = self.http.post(format!("{}{path}", self.base));
        let request = request.header("accept", "text/event-stream").json(body);
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(SseReader { response, parser: SseParser::default() });
        }
        let (status, body) = json(response).await?;
        Err(CliError::failed(format!("{path} answered {status}: {}", error_text(&body))))
    }

    /// Ids of `/v1/models`.
    pub(crate) async fn models(&self) -> Result<Vec<String>, CliError> {
        let (status, body) = self.get("/v1/models").await?;
        let data = body.get("data").and_then(Value::as_array).ok_or_else(|| {
            CliError::failed(format!("/v1/models answered {status}: {}", error_text(&body)))
        })?;
        let ids = data.iter().filter_map(|model| model.get("id")?.as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, CliError> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        request.send().await.map_err(|error| {
            let failed = CliError::failed(format!("{} does not answer: {error}", self.base));
            if error.is_connect() { failed.hint("is the server running there?") } else { failed }
        })
    }
}

impl SseReader {
    /// The next event; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<SseEvent>, CliError> {
        loop {
            if let Some(event) = self.parser.ready.pop_front() {
                return Ok(Some(event));
            }
            let chunk = self.response.chunk().await;
            match chunk.map_err(|e| CliError::failed(format!("the stream broke: {e}")))? {
                Some(bytes) => self.parser.push(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// The next `data:` as JSON; none at `[DONE]`, an error where the server reports one.
    pub(crate) async fn next_json(&mut self) -> Result<Option<Value>, CliError> {
        let Some(event) = self.next().await? else { return Ok(None) };
        if event.data == "[DONE]" {
            return Ok(None);
        }
        let value: Value = serde_json::from_str(&event.data)
            .map_err(|e| CliError::failed(format!("the stream holds no JSON: {e}")))?;
        if value.get("error").is_some_and(|error| !error.is_null()) {
            return Err(CliError::failed(format!("the stream failed: {}", error_text(&value))));
        }
        Ok(Some(value))
    }
}

impl SseParser {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            self.end_line(line.trim_end_matches('\r'));
        }
    }

    fn end_line(&mut self, line: &str) {
        if line.is_empty() {
            if !self.data.is_empty() {
                let data = std::mem::take(&mut self.data).join("\n");
                self.ready.push_back(SseEvent { name: self.name.take(), data });
            }
            self.name = None;
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => self.data.push(value.to_owned()),
            "event" => self.name = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// The message of an error body in any of the usual forms.
pub(crate) fn error_text(body: &Value) -> String {
    let error = body.get("error").unwrap_or(body);
    let text = error.get("message").or(error.get("detail")).unwrap_or(error);
    let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
    text.chars().take(SHOWN_ERROR_CHARS).collect()
}

async fn json(response: Response) -> Result<(StatusCode, Value), CliError> {
    let status = response.status();
    let text = response
        .text()
        .await
        .map_err(|e| CliError::failed(format!("the answer broke off: {e}")))?;
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok((status, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = b": hb\nevent: output\ndata: {\"a\":\ndata: 1}\n\n: hb\nid: 7\ndata: \xc3\xbc\r\n\r\n\n";
        let expected = [
            SseEvent { name: Some("output".to_owned()), data: "{\"a\":\n1}".to_owned() },
            SseEvent { name: None, data: "\u{fc}".to_owned() },
        ];
        for size in 1..=text.len() {
            let mut parser = SseParser::default();
            text.chunks(size).for_each(|chunk| parser.push(chunk));
            assert_eq!(parser.ready, expected, "chunks of {size}");
        }
    }
}
