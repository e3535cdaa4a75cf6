//! Each rule as a table: the state, and what the rule says of it.

use std::time::Duration;

use super::{Budget, Claim, Place, Running, Share, Usage, gives_way, parts, time_to_first_token};
use crate::RouteClass::{self, Compliance, Default, Latency, Reasoning};
use crate::pace::Pace;
use crate::{PerClass, RequestId};

/// Half is kept for the urgent, a quarter for the rest.
fn percents() -> PerClass<usize> {
    of_classes([50, 0, 25, 0])
}

fn of_classes(values: [usize; 4]) -> PerClass<usize> {
    PerClass::from_fn(|class| values[class as usize])
}

#[test]
fn a_class_is_served_by_age() {
    for class in RouteClass::ALL {
        assert!(Place::new(class, 3) < Place::new(class, 4));
    }
}

#[test]
fn the_urgent_overtake_a_bounded_number() {
    let num_overtakers = |class: RouteClass| {
        let place = Place::new(class, 1000);
        (1001..2000).filter(|&later| Place::new(Latency, later) < place).count()
    };
    assert_eq!(RouteClass::ALL.map(num_overtakers), [0, 7, 15, 63]);
}

#[test]
fn choices_stand_behind_their_request_and_before_whoever_came_later() {
    let place = Place::new(Reasoning, 7);
    assert!(place < place.of_choice(0) && place.of_choice(0) < place.of_choice(1));
    assert!(place.of_choice(1) < Place::new(Reasoning, 10));
}

#[test]
fn parts_are_rounded_down_and_never_more_than_there_is() {
    assert_eq!(parts(10, &percents()), of_classes([5, 0, 2, 0]));
    assert_eq!(parts(1, &percents()), of_classes([0, 0, 0, 0]));
    assert_eq!(parts(10, &of_classes([80, 40, 40, 10])), of_classes([8, 2, 0, 0]));
}

#[test]
fn a_class_has_its_part_and_whoever_comes_has_the_rest() {
    let mut budget = Budget::new(8, &percents());
    let available = |budget: &Budget| Share::all().map(|share| budget.available(share)).collect();
    let all: Vec<usize> = available(&budget);
    assert_eq!(all, [4, 0, 2, 0, 8]);
    // One token of its part, then three that it has no part in.
    budget.take(Latency, 1);
    budget.take(Reasoning, 3);
    let all: Vec<usize> = available(&budget);
    assert_eq!(all, [3, 0, 2, 0, 4]);
    // More than its part: the others' parts are no more than what is left.
    budget.take(Latency, 3);
    let all: Vec<usize> = available(&budget);
    assert_eq!(all, [0, 0, 1, 0, 1]);
}

#[test]
fn a_sequence_wants_a_chunk_of_what_it_is_behind_and_only_from_its_own_class_or_what_is_lent() {
    let mut item = running('A', Default, 0);
    (item.num_behind, item.num_granted) = (10, 1);
    assert_eq!(item.num_wanted(4, Share::Kept(Default)), 3);
    assert_eq!(item.num_wanted(64, Share::Lent), 9);
    assert_eq!(item.num_wanted(64, Share::Kept(Latency)), 0);
    item.is_gone = true;
    assert_eq!(item.num_wanted(64, Share::Lent), 0);
}

fn running(name: char, class: RouteClass, arrival: u64) -> Running {
    Running {
        id: RequestId(name as u64),
        place: Place::new(class, arrival),
        class,
        num_behind: 1,
        num_granted: 0,
        num_blocks: 0,
        is_scoring: false,
        is_gone: false,
    }
}

/// Sequences that run: name, class, arrival, blocks. Of 20 blocks 10 are kept for the urgent and 5
/// for the rest.
type Table<'a> = &'a [(char, RouteClass, u64, usize)];

/// Who gives way to `name`, which waits if it is not in the table; `first` is the first in line.
fn loser(
    table: Table<'_>,
    name: char,
    first: char,
    waits: Option<(RouteClass, u64, usize)>,
) -> char {
    let mut usage = Usage::new(20, &percents());
    let mut line = Vec::new();
    for &(name, class, arrival, num_blocks) in table {
        usage.add(class, num_blocks);
        line.push(running(name, class, arrival));
    }
    let place_of = |name: char| {
        let runs = line.iter().find(|seq| seq.id.0 == name as u64).map(|seq| seq.place);
        runs.or(waits.map(|(class, arrival, _)| Place::new(class, arrival)))
    };
    let place = place_of(name).unwrap();
    let runs = table.iter().find(|row| row.0 == name).map(|row| (row.1, row.2, 0));
    let (class, _, num_needed) = runs.or(waits).unwrap();
    let claim = Claim { place, class, num_needed, is_running: runs.is_some() };
    let loser = gives_way(&line, &usage, place_of(first), &claim);
    loser.map_or('-', |at| char::from(line[at].id.0 as u8))
}

#[test]
fn of_one_class_the_youngest_gives_way_to_the_elder_and_nobody_to_the_youngest() {
    let table: Table<'_> = &[('A', Default, 0, 7), ('B', Default, 1, 7), ('C', Default, 2, 6)];
    assert_eq!(loser(table, 'A', 'A', None), 'C');
    assert_eq!(loser(table, 'B', 'A', None), 'C');
    assert_eq!(loser(table, 'C', 'A', None), '-');
}

#[test]
fn a_class_takes_back_what_it_lent_from_the_last_of_those_with_more_than_their_part() {
    // The urgent have 6 of their 10 blocks, the rest 14 instead of 5.
    let table: Table<'_> = &[('A', Default, 0, 7), ('L', Latency, 40, 6), ('B', Default, 1, 7)];
    assert_eq!(loser(table, 'L', 'A', None), 'B');
    // Neither takes more than its part, nor from a class that has no more than its own.
    let table: Table<'_> = &[('A', Default, 0, 5), ('L', Latency, 40, 15)];
    assert_eq!(loser(table, 'L', 'A', None), '-');
    let table: Table<'_> = &[('A', Default, 0, 5), ('L', Latency, 40, 9), ('M', Latency, 41, 6)];
    assert_eq!(loser(table, 'L', 'A', None), 'M');
}

#[test]
fn what_is_kept_for_a_class_is_not_taken_by_who_came_earlier() {
    let table: Table<'_> = &[('A', Default, 0, 1), ('B', Default, 1, 9), ('L', Latency, 40, 10)];
    assert_eq!(loser(table, 'B', 'A', None), '-');
}

#[test]
fn the_first_in_line_gives_way_to_nobody_and_takes_from_everybody() {
    let table: Table<'_> = &[('A', Reasoning, 0, 10), ('L', Latency, 90, 10)];
    // Not even to a class that is owed its part.
    assert_eq!(loser(table, 'L', 'A', None), '-');
    assert_eq!(loser(table, 'L', 'L', None), 'A');
    assert_eq!(loser(table, 'A', 'A', None), 'L');
}

#[test]
fn one_that_waits_takes_what_is_kept_for_its_class_and_no_more() {
    let table: Table<'_> = &[('A', Default, 0, 7), ('B', Default, 1, 7), ('L', Latency, 40, 6)];
    assert_eq!(loser(table, 'X', 'A', Some((Latency, 50, 4))), 'B');
    assert_eq!(loser(table, 'X', 'A', Some((Latency, 50, 5))), '-');
    assert_eq!(loser(table, 'X', 'A', Some((Compliance, 3, 1))), '-');
    assert_eq!(loser(table, 'X', 'X', Some((Default, 0, 1))), 'B');
}

#[test]
fn the_first_token_comes_after_the_class_and_beside_what_others_are_kept() {
    // A millisecond a token, nothing a step.
    let mut pace = Pace::default();
    for tokens in [1, 10, 100] {
        pace.observe(tokens, Duration::from_millis(tokens as u64));
    }
    let millis = |behind: [usize; 4], class, num_tokens| {
        let behind = of_classes(behind);
        let time = time_to_first_token(&pace, 100, &percents(), &behind, (class, num_tokens));
        time.unwrap().as_millis()
    };
    // Alone, and behind its own class.
    assert_eq!(millis([0, 0, 0, 0], Default, 300), 300);
    assert_eq!(millis([0, 0, 200, 0], Default, 100), 300);
    // Half of each step goes to the urgent as long as they need it; others go by the line.
    assert_eq!(millis([9000, 0, 0, 0], Default, 100), 200);
    assert_eq!(millis([0, 0, 0, 9000], Default, 100), 100);
    assert_eq!(millis([20, 0, 0, 0], Default, 80), 100);
}
