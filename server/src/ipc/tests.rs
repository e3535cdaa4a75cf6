//! Frames survive the trip, and broken ones are refused.

use super::*;

fn step() -> FromWorker {
    let delta =
        Event::Delta { text: "grüß".to_owned(), token_ids: vec![7], logprobs: Vec::new() };
    FromWorker::Step { events: vec![(3, delta)], stats: Stats { steps: 9, ..Stats::default() } }
}

#[test]
fn messages_survive_the_trip_and_the_end_is_seen() {
    let mut wire = Vec::new();
    write_frame(&mut wire, &step()).unwrap();
    write_frame(&mut wire, &FromWorker::Hello { protocol: PROTOCOL_VERSION }).unwrap();
    let mut reader = wire.as_slice();
    assert_eq!(read_frame::<FromWorker>(&mut reader).unwrap(), step());
    let hello = read_frame::<FromWorker>(&mut reader).unwrap();
    assert_eq!(hello, FromWorker::Hello { protocol: PROTOCOL_VERSION });
    assert!(matches!(read_frame::<FromWorker>(&mut reader), Err(FrameError::Closed)));
}

#[test]
fn a_cut_a_wrong_and_an_oversized_frame_are_refused() {
    let wire = encode(&step()).unwrap();
    let cut = read_frame::<FromWorker>(&wire[..wire.len() - 1]);
    assert!(matches!(cut, Err(FrameError::Io(_))), "{cut:?}");
    let wrong = read_frame::<FromWorker>([0, 0, 0, 1, 250].as_slice());
    assert!(matches!(wrong, Err(FrameError::Decode(_))), "{wrong:?}");
    let oversized = read_frame::<FromWorker>([255, 255, 255, 255].as_slice());
    assert!(matches!(oversized, Err(FrameError::TooLong(_))), "{oversized:?}");
}
