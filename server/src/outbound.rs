//! Requests that the node makes to addresses which its callers name, kept away from private networks.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use url::{Host, Url};

/// Longest time for one request, its connection included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a caller's address is not used.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// It is no URL.
    #[error("not a URL: {0}")]
    Url(#[from] url::ParseError),
    /// Only HTTP is spoken.
    #[error("expected http or https: {0}")]
    Scheme(String),
    /// It leads into a private network.
    #[error("{host} is at a private address: {address}; hint: pass --allow-private-webhooks")]
    Private {
        /// The host that was named.
        host: String,
        /// Where it is.
        address: IpAddr,
    },
    /// Its name has no address.
    #[error("{host} has no address: {reason}")]
    Unknown {
        /// The host that was named.
        host: String,
        /// What the resolver said.
        reason: io::Error,
    },
}

/// Which addresses may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of the public internet.
    Public,
    /// All.
    Any,
}

impl Reach {
    /// Parses a URL and refuses one that names a forbidden address. Names are checked when they are resolved.
    pub fn parse(self, text: &str) -> Result<Url, OutboundError> {
        let url = Url::parse(text)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OutboundError::Scheme(url.scheme().to_owned()));
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => None,
        };
        match literal {
            Some(address) => self.check(address, &address.to_string()).map(|()| url),
            None => Ok(url),
        }
    }

    /// A client that connects to checked addresses only: a name is resolved once a connection, each of its addresses
    /// is checked, and the connection goes to one of these. Redirects and proxies are not followed, because they would
    /// lead around the check.
    pub fn client(self, user_agent: &str) -> reqwest::Result<reqwest::Client> {
        // The provider is set once; a second call finds it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .user_agent(user_agent)
            .dns_resolver(Checked(self))
            .redirect(Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
    }

    fn check(self, address: IpAddr, host: &str) -> Result<(), OutboundError> {
        match self {
            Self::Public if !is_public(address) => {
                Err(OutboundError::Private { host: host.to_owned(), address })
            }
            Self::Public | Self::Any => Ok(()),
        }
    }

    async fn resolve(self, host: &str) -> Result<Vec<SocketAddr>, OutboundError> {
        let unknown = |reason| OutboundError::Unknown { host: host.to_owned(), reason };
        let found: Vec<SocketAddr> =
            tokio::net::lookup_host((host, 0)).await.map_err(unknown)?.collect();
        found.iter().try_for_each(|address| self.check(address.ip(), host))?;
        Ok(found)
    }
}

/// Whether a request failed because its address is forbidden, so that trying again is of no use.
pub fn is_forbidden(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(OutboundError::Private { .. })) {
            return true;
        }
        cause = error.source();
    }
    false
}

struct Checked(Reach);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = reach.resolve(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is of the public internet, by the special-purpose registries of IANA.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && b & 0xc0 == 64;
    let protocols = (a, b, c) == (192, 0, 0);
    let relays = (a, b, c) == (192, 88, 99);
    let benchmarks = a == 198 && b & 0xfe == 18;
    let reserved = a >= 240;
    !(a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || shared
        || protocols
        || relays
        || benchmarks
        || reserved)
}

/// Only global unicast (`2000::/3`) is public, without its special blocks; addresses that stand for an IPv4 address are
/// as public as that.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b) {
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0xffff) => v4(g, h),
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => v4(g, h),
        (0x2002, high) => v4(high, c),
        (0x2001, b) if b < 0x200 || b == 0xdb8 => false,
        (0x3fff, b) if b < 0x1000 => false,
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests;
