//! Text to values: sizes, times, switches.

use std::time::Duration;

use pinion_engine::RouteClass;

/// Longest label of a host name.
const MAX_LABEL: usize = 63;

const UNITS: &[(&str, u64)] = &[
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("b", 1),
];

/// `512`, `512B`, `1.5GiB`, `2 GB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_lowercase();
    let (number, unit) = UNITS
        .iter()
        .find_map(|&(name, unit)| Some((lower.strip_suffix(name)?, unit)))
        .unwrap_or((&lower, 1));
    let number: f64 = number.trim().parse().map_err(|_e| "expected a size such as 512MiB")?;
    if !(number.is_finite() && 0.0 <= number) {
        return Err("expected a size that is not negative".to_owned());
    }
    #[expect(clippy::cast_sign_loss, reason = "it was checked")]
    let bytes = (number * unit as f64) as u64;
    Ok(bytes)
}

/// `250ms`, `3s`, `2m`, `1h`, or seconds.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let (number, unit) = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)]
        .iter()
        .find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit)))
        .unwrap_or((text, 1.0));
    let number: f64 = number.trim().parse().map_err(|_e| "expected a time such as 30s")?;
    Duration::try_from_secs_f64(number * unit).map_err(|e| e.to_string())
}

/// `true`, `false` and their usual spellings.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// A positive count.
pub(super) fn count(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(0) => Err("expected a number above zero".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err("expected a whole number".to_owned()),
    }
}

/// A count that may be zero and is at most `MOST`.
pub(super) fn up_to<const MOST: u32>(text: &str) -> Result<u32, String> {
    let count = text.trim().parse().ok().filter(|count| *count <= MOST);
    count.ok_or_else(|| format!("expected a whole number up to {MOST}"))
}

/// `latency=25,default=50`: a percentage for each class, zero for those that are not named.
pub(super) fn class_shares(text: &str) -> Result<[u32; RouteClass::ALL.len()], String> {
    let names = || RouteClass::ALL.map(RouteClass::name).join(", ");
    let mut shares = [None; RouteClass::ALL.len()];
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, percent) = part.split_once('=').ok_or("expected CLASS=PERCENT,…")?;
        let class = RouteClass::ALL.into_iter().find(|class| class.name() == name.trim());
        let class = class.ok_or_else(|| format!("expected one of {} before `=`", names()))?;
        if shares[class as usize].replace(up_to::<100>(percent)?).is_some() {
            return Err(format!("{} is there twice", class.name()));
        }
    }
    let shares = shares.map(Option::unwrap_or_default);
    let total: u32 = shares.iter().sum();
    if 100 < total {
        Err(format!("expected 100 percent at most, these are {total}"))
    } else {
        Ok(shares)
    }
}

/// A name of lower-case letters, digits and inner dashes, as in a DNS label.
pub(super) fn label(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = (1..=MAX_LABEL).contains(&text.len())
        && text.chars().all(is_plain)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if is_label {
        return Ok(text.to_owned());
    }
    Err(format!("expected 1 to {MAX_LABEL} lower-case letters, digits and inner dashes"))
}

/// The host's name as a label.
pub(super) fn host_label() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let host = name.split('.').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let label: String = host.chars().map(plain).take(MAX_LABEL).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "node".to_owned() } else { label.to_owned() }
}
