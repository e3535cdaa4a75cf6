//! Tests of `speculation`.

use proptest::prelude::*;

use super::Speculation;

fn guess(tokens: &[u32], limit: usize) -> Vec<u32> {
    Speculation::new(16).guess(tokens, limit)
}

#[test]
fn what_followed_the_last_time_is_guessed() {
    assert_eq!(guess(&[1, 2, 3, 4, 5, 6, 7, 8, 1, 2], 3), [3, 4, 5]);
    assert_eq!(guess(&[1, 2, 9, 1, 2, 8, 1, 2], 1), [8], "the last occurrence counts");
    assert_eq!(guess(&[1, 2, 3, 4, 70, 9, 3, 4, 80, 1, 2, 3, 4], 1), [70], "long runs count more");
}

#[test]
fn what_was_never_there_is_not_guessed() {
    assert!(guess(&[], 4).is_empty());
    assert!(guess(&[1], 4).is_empty());
    assert!(guess(&[1, 2, 3, 4, 5], 4).is_empty());
    assert!(guess(&[1, 2, 3, 1, 2], 0).is_empty());
}

#[test]
fn a_repetition_is_continued_past_its_end() {
    assert_eq!(guess(&[7, 7, 7], 4), [7; 4]);
    assert_eq!(guess(&[1, 2, 3, 1, 2, 3], 4), [1, 2, 3, 1]);
}

#[test]
fn guesses_grow_while_they_are_right_and_shrink_when_not() {
    let tokens = [5; 8];
    let mut speculation = Speculation::new(6);
    let mut length = |checked: Option<(usize, usize)>| {
        if let Some((num_guessed, num_right)) = checked {
            speculation.checked(num_guessed, num_right);
        }
        speculation.guess(&tokens, 100).len()
    };
    let lengths = [
        length(None),
        length(Some((4, 4))),
        length(Some((6, 2))),
        length(Some((2, 0))),
        length(Some((1, 1))),
    ];
    assert_eq!(lengths, [4, 6, 2, 1, 2]);
}

proptest! {
    #[test]
    fn a_guess_is_what_a_search_from_the_end_finds(
        tokens in prop::collection::vec(0u32..4, 0..60),
        limit in 0usize..4,
        steps in prop::collection::vec(1usize..5, 0..10),
    ) {
        let mut speculation = Speculation::new(4);
        let mut len = 0;
        for step in steps {
            len = (len + step).min(tokens.len());
            speculation.guess(&tokens[..len], limit);
        }
        let find = |n: usize| {
            let run = &tokens[tokens.len().checked_sub(n)?..];
            (n..tokens.len()).rev().find(|&end| &tokens[end - n..end] == run)
        };
        let expected: Vec<u32> = match find(4).or_else(|| find(2)) {
            None => Vec::new(),
            Some(from) => tokens[from..].iter().cycle().take(limit).copied().collect(),
        };
        prop_assert_eq!(speculation.guess(&tokens, limit), expected);
    }
}
