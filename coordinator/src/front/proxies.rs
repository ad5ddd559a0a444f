//! Whose request it is: the peer's, or that of whom a trusted proxy names.

use axum::http::HeaderMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Entries of `X-Forwarded-For` that are looked at, from the right: a chain of
/// one's own proxies is short, and what is further left anybody may have written.
const HOPS_MAX: usize = 16;

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Not an address, nor an address and a number of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address such as 10.0.0.1, or a network such as 10.0.0.0/8")]
pub struct NetworkError;

impl Network {
    /// Whether the address lies in it. A mapped IPv4 address is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                u128::from(own.to_bits() ^ other.to_bits()) << 96
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differ.leading_zeros() >= u32::from(self.bits)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(bits_max), |bits| bits.parse().map_err(|_| NetworkError))?;
        if bits > bits_max { Err(NetworkError) } else { Ok(Network { address, bits }) }
    }
}

/// The proxies whose word is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(pub Vec<Network>);

impl Proxies {
    /// Whether the address is a trusted proxy's.
    pub fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// The client of a request that came from `peer`: the last address of
    /// `X-Forwarded-For` that is no trusted proxy's, if the peer is one. Of a
    /// list that cannot be read, what a trusted proxy has added is believed.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        if !self.trust(client) {
            return client;
        }
        let lines: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok()).collect();
        let entries = lines.iter().rev().flat_map(|line| line.rsplit(','));
        for entry in entries.take(HOPS_MAX) {
            let Some(address) = address(entry.trim()) else { break };
            client = address;
            if !self.trust(client) {
                break;
            }
        }
        client
    }
}

/// An address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let alone = text.trim_start_matches('[').trim_end_matches(']');
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    alone.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn proxies(networks: &[&str]) -> Proxies {
        Proxies(networks.iter().map(|text| text.parse().expect("a network")).collect())
    }

    fn client(proxies: &Proxies, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).expect("a value"));
        }
        proxies.client(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let none = Proxies::default();
        assert_eq!(client(&none, "192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
        let own = proxies(&["10.0.0.0/8", "::1"]);
        assert_eq!(client(&own, "192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
        assert_eq!(client(&own, "10.1.2.3", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client(&own, "::ffff:10.1.2.3", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client(&own, "::1", &["[2001:db8::5]:443"]), "2001:db8::5");
        assert_eq!(client(&own, "10.1.2.3", &["203.0.113.9:5555"]), "203.0.113.9");
    }

    #[test]
    fn what_a_client_wrote_itself_does_not_count() {
        let own = proxies(&["10.0.0.0/8"]);
        // The client claims 198.51.100.7; the outer proxy has added its true address.
        let chain = ["198.51.100.7, 203.0.113.9, 10.0.0.2"];
        assert_eq!(client(&own, "10.0.0.1", &chain), "203.0.113.9");
        let lines = ["198.51.100.7", "203.0.113.9"];
        assert_eq!(client(&own, "10.0.0.1", &lines), "203.0.113.9");
        assert_eq!(client(&own, "10.0.0.1", &["junk"]), "10.0.0.1");
        assert_eq!(client(&own, "10.0.0.1", &["junk, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client(&own, "10.0.0.1", &[]), "10.0.0.1");
        let long = "10.0.0.2,".repeat(10_000) + "10.0.0.2";
        assert_eq!(client(&own, "10.0.0.1", &[&long]), "10.0.0.2");
    }

    #[test]
    fn networks_are_read_or_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "host", "1.2.3.4/x"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
        }
        let all: Network = "0.0.0.0/0".parse().expect("a network");
        assert!(all.contains("203.0.113.9".parse().expect("an address")));
        assert!(!all.contains("2001:db8::1".parse().expect("an address")));
    }
}
