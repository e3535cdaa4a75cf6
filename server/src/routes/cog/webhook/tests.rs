//! The waits between attempts are Cog's.

use super::*;

#[test]
fn waits_double_up_to_a_limit() {
    let millis: Vec<u128> = (1..=MAX_RETRIES).map(|number| back_off(number).as_millis()).collect();
    let expected =
        [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 102_400, 102_400, 102_400];
    assert_eq!(millis, expected);
}
