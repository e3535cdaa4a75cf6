//! The waits between attempts are Cog's, and a failed one says why.

use super::*;

#[test]
fn waits_double_up_to_a_limit() {
    let millis: Vec<u128> = (1..=MAX_RETRIES).map(|number| back_off(number).as_millis()).collect();
    let expected =
        [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 102_400, 102_400, 102_400];
    assert_eq!(millis, expected);
}

#[tokio::test]
async fn a_connection_that_is_refused_is_called_so() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/secret", listener.local_addr().unwrap());
    drop(listener);
    let error = Reach::Any.client(VERSION).unwrap().post(url).send().await.unwrap_err();
    let cause = root_cause(&error);
    assert!(cause.contains("refused") && !cause.contains("secret"), "{cause}");
}
