//! `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Hermes and Qwen models write it.

use serde_json::Value;

use super::{Format, Piece, ToolCallParser};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

pub(super) const FORMAT: Format =
    Format { name: "hermes", close: CLOSE, parser: || Box::new(Hermes::default()) };

#[derive(Debug, Default)]
struct Hermes {
    /// Text that may belong to a call: blanks, and after them a part of a call from `OPEN` on.
    held: String,
    /// Bytes of `held` in which there is no `CLOSE`.
    searched: usize,
    /// Nothing but blanks came since the last call.
    after_call: bool,
}

impl ToolCallParser for Hermes {
    fn push(&mut self, text: &str, out: &mut Vec<Piece>) {
        self.held.push_str(text);
        loop {
            let progressed = if self.in_call() { self.close(out) } else { self.open(out) };
            if !progressed {
                return;
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<Piece>) {
        // Models may end right after the object.
        let held = std::mem::take(&mut self.held);
        match held.trim_start().strip_prefix(OPEN).and_then(call) {
            Some(call) => out.push(call),
            None => self.text(&held, out),
        }
    }
}

impl Hermes {
    fn in_call(&self) -> bool {
        self.held.trim_start().starts_with(OPEN)
    }

    /// Passes on the text before the next call; true if a call begins.
    fn open(&mut self, out: &mut Vec<Piece>) -> bool {
        let start = self.held.find(OPEN);
        let before = &self.held[..start.unwrap_or(self.held.len() - partial_open(&self.held))];
        let text = before.trim_end().to_owned();
        self.held.drain(..text.len());
        self.searched = 0;
        self.text(&text, out);
        start.is_some()
    }

    /// Passes on the call if it is whole.
    fn close(&mut self, out: &mut Vec<Piece>) -> bool {
        let from = self.held.floor_char_boundary(self.searched.saturating_sub(CLOSE.len()));
        let Some(at) = self.held[from..].find(CLOSE) else {
            self.searched = self.held.len();
            return false;
        };
        let rest = self.held.split_off(from + at + CLOSE.len());
        let whole = std::mem::replace(&mut self.held, rest);
        self.searched = 0;
        let inner = whole.trim_start().strip_prefix(OPEN).and_then(|call| call.strip_suffix(CLOSE));
        match inner.and_then(call) {
            Some(call) => {
                self.after_call = true;
                out.push(call);
            }
            None => self.text(&whole, out),
        }
        true
    }

    /// Blanks between calls are no text.
    fn text(&mut self, text: &str, out: &mut Vec<Piece>) {
        let text = if self.after_call { text.trim_start() } else { text };
        if !text.is_empty() {
            self.after_call = false;
            out.push(Piece::Text(text.to_owned()));
        }
    }
}

/// Length of the longest end of `text` that may become `OPEN`.
fn partial_open(text: &str) -> usize {
    (1..OPEN.len()).rev().find(|&length| text.ends_with(&OPEN[..length])).unwrap_or(0)
}

fn call(json: &str) -> Option<Piece> {
    let Value::Object(mut call) = serde_json::from_str(json.trim()).ok()? else { return None };
    let name = call.get("name")?.as_str().filter(|name| !name.is_empty())?.to_owned();
    let arguments = match call.remove("arguments") {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(arguments @ Value::Object(_)) => arguments.to_string(),
        Some(Value::String(text)) => {
            serde_json::from_str::<Value>(&text).ok().filter(Value::is_object)?;
            text
        }
        Some(_) => return None,
    };
    Some(Piece::Call { name, arguments })
}
