//! Calls are found however the text is cut, and everything else stays text.

use proptest::prelude::*;

use super::*;

fn call(name: &str, arguments: &str) -> Piece {
    Piece::Call { name: name.to_owned(), arguments: arguments.to_owned() }
}

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

/// Parses text given in chunks, and joins neighbouring texts.
fn parse<'a>(chunks: impl IntoIterator<Item = &'a str>) -> Vec<Piece> {
    let mut parser = (FORMATS[0].parser)();
    let mut pieces = Vec::new();
    chunks.into_iter().for_each(|chunk| parser.push(chunk, &mut pieces));
    parser.finish(&mut pieces);
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(more)) => before.push_str(&more),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

type Case = (&'static str, fn() -> Vec<Piece>);

const CASES: &[Case] = &[
    ("plain <text> with < signs ", || vec![text("plain <text> with < signs ")]),
    (
        "I look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, \"é\"]}}\n</tool_call>",
        || vec![text("I look."), call("f", "{\"a\":[1,\"é\"]}")],
    ),
    (
        "<tool_call>{\"name\":\"f\"}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>\n",
        || vec![call("f", "{}"), call("g", "{}")],
    ),
    ("<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}</tool_call> done", || {
        vec![call("f", "{\"a\":1}"), text("done")]
    }),
    ("x <tool_call>{\"name\": f}</tool_call> y", || {
        vec![text("x <tool_call>{\"name\": f}</tool_call> y")]
    }),
    ("<tool_call>[1]</tool_call><tool_call>{\"name\":\"f\"}</tool_call>", || {
        vec![text("<tool_call>[1]</tool_call>"), call("f", "{}")]
    }),
    ("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}", || vec![call("f", "{\"a\":1}")]),
    ("cut <tool_call>{\"name\":\"f\",\"argu", || {
        vec![text("cut <tool_call>{\"name\":\"f\",\"argu")]
    }),
    ("ends <tool_c", || vec![text("ends <tool_c")]),
    ("<tool_call>{\"name\":\"f\",\"arguments\":7}</tool_call>", || {
        vec![text("<tool_call>{\"name\":\"f\",\"arguments\":7}</tool_call>")]
    }),
    ("", Vec::new),
    ("  \n", || vec![text("  \n")]),
];

#[test]
fn whole_texts_are_split_into_text_and_calls() {
    for (input, expected) in CASES {
        assert_eq!(parse([*input]), expected(), "{input}");
    }
}

#[test]
fn texts_that_come_by_the_character_are_split_alike() {
    for (input, expected) in CASES {
        let chunks = input.char_indices().map(|(at, c)| &input[at..at + c.len_utf8()]);
        assert_eq!(parse(chunks), expected(), "{input}");
    }
}

#[test]
fn text_before_a_call_is_not_held_back() {
    let mut parser = (FORMATS[0].parser)();
    let mut pieces = Vec::new();
    parser.push("Hello <b> <tool", &mut pieces);
    assert_eq!(pieces, [text("Hello <b>")]);
    parser.push("box>", &mut pieces);
    assert_eq!(pieces, [text("Hello <b>"), text(" <toolbox>")]);
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("<tool_call>"), Just("</tool_call>"), Just("{\"name\":\"f\"}"), Just("<"),
                Just(" "), Just("é"), Just("<tool"), Just("word"),
            ],
            0..12,
        ),
        cut in 0_usize..80,
    ) {
        let input = parts.concat();
        let cut = input.floor_char_boundary(cut.min(input.len()));
        prop_assert_eq!(parse([&input[..cut], &input[cut..]]), parse([input.as_str()]));
    }

    #[test]
    fn text_without_calls_is_unchanged(input in "[<>/a-z_ \n]{0,40}") {
        let expected = if input.is_empty() { Vec::new() } else { vec![text(&input)] };
        prop_assert_eq!(parse([input.as_str()]), expected);
    }
}
