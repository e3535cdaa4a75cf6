//! Every special block is refused, however it is written, and the public internet is not.

use super::*;

const PRIVATE: &[&str] = &[
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
];

const PUBLIC: &[&str] = &[
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2002:808:808::1",
    "2606:4700:4700::1111",
    "3ffe::1",
];

#[test]
fn special_blocks_are_not_public() {
    for text in PRIVATE {
        assert!(!is_public(text.parse().unwrap()), "{text}");
    }
    for text in PUBLIC {
        assert!(is_public(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn a_forbidden_address_is_refused_however_it_is_written() {
    for url in [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1:80/hook",
        "https://user@10.0.0.1/",
        "http://[::1]:8080/",
        "http://[::ffff:192.168.0.1]/",
        "http://169.254.169.254/latest/meta-data",
    ] {
        let error = Reach::Public.parse(url).unwrap_err();
        assert!(matches!(error, OutboundError::Private { .. }), "{url}: {error}");
        assert!(Reach::Any.parse(url).is_ok(), "{url}");
    }
    assert!(Reach::Public.parse("https://8.8.8.8/hook").is_ok());
    assert!(Reach::Public.parse("https://example.com/hook").is_ok());
}

#[test]
fn only_http_is_spoken() {
    for url in ["ftp://example.com/", "file:///etc/passwd", "unix:/run/docker.sock"] {
        assert!(matches!(Reach::Any.parse(url), Err(OutboundError::Scheme(_))), "{url}");
    }
    assert!(matches!(Reach::Any.parse("hook"), Err(OutboundError::Url(_))));
}

#[tokio::test]
async fn a_name_of_a_private_address_is_refused_where_the_connection_would_be_made() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    assert!(Reach::Public.parse(&url).is_ok(), "a name is not known to be private before");
    let client = Reach::Public.client("test").unwrap();
    let error = client.post(&url).send().await.unwrap_err();
    assert!(is_forbidden(&error), "{error:?}");
}
