//! What HF's template dialect has on top of Jinja.

/// Replaces `{% generation %}`, which marks an answer for training, by a block that only groups.
///
/// The dashes that trim white space stay, so the text around it does not change.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(length) = tag[2..].find("%}") else {
            out.push_str(tag);
            return out;
        };
        let (tag, after) = tag.split_at(2 + length + 2);
        out.push_str(&replaced(tag));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn replaced(tag: &str) -> String {
    let inner = &tag[2..tag.len() - 2];
    match inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
        "generation" => tag.replace("generation", "with"),
        "endgeneration" => tag.replace("endgeneration", "endwith"),
        _ => tag.to_owned(),
    }
}
