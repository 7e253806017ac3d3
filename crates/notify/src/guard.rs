//! Which addresses may be connected to: a receiver's name is somebody else's to point wherever they like, so what counts is the
//! address that it leads to.
//!
//! A name is refused if one of its addresses is: the answer of an honest server does not mix them.

use crate::config::Reach;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is that is not simply public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// Where clouds tell a machine who it is, and give it credentials. Never connected to.
    Metadata,
    /// This host.
    Loopback,
    /// A private network.
    Private,
    /// The link: never connected to.
    LinkLocal,
    /// Unspecified, multicast, for documentation, or not assigned. Never connected to.
    Reserved,
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Reserved => "reserved",
        })
    }
}

/// Why `address` must not be connected to; `None`: it may be.
#[must_use]
pub fn refused(address: IpAddr, reach: Reach) -> Option<AddressClass> {
    let class = match address {
        IpAddr::V4(address) => class_of_v4(address)?,
        IpAddr::V6(address) => class_of_v6(address)?,
    };
    let allowed = match class {
        AddressClass::Loopback => reach.loopback,
        AddressClass::Private => reach.private,
        AddressClass::Metadata | AddressClass::LinkLocal | AddressClass::Reserved => false,
    };
    (!allowed).then_some(class)
}

/// Whether `address` is this host.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Metadata of Amazon, Google, Microsoft, Oracle (169.254.169.254), of Amazon's containers (169.254.170.2 and .23), Azure's
/// agent (168.63.129.16) and Alibaba (100.100.100.200). The second and third look public and private.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
];

/// The same over IPv6: Amazon, its containers, Google.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// <https://www.iana.org/assignments/iana-ipv4-special-registry>.
fn class_of_v4(address: Ipv4Addr) -> Option<AddressClass> {
    if METADATA_V4.contains(&address) {
        return Some(AddressClass::Metadata);
    }
    match address.octets() {
        [127, ..] => Some(AddressClass::Loopback),
        [169, 254, ..] => Some(AddressClass::LinkLocal),
        // RFC 1918, and RFC 6598: shared by carriers, used like private ones.
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Some(AddressClass::Private),
        // This network; IETF protocols; documentation; 6to4 relays; benchmarks; multicast and above.
        [0, ..] | [192, 0, 0, _] | [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(AddressClass::Reserved),
        [192, 88, 99, _] | [198, 18 | 19, ..] | [224..=255, ..] => Some(AddressClass::Reserved),
        _ => None,
    }
}

/// <https://www.iana.org/assignments/iana-ipv6-special-registry>. Where an address stands for one of IPv4, that one counts.
fn class_of_v6(address: Ipv6Addr) -> Option<AddressClass> {
    if METADATA_V6.contains(&address) {
        return Some(AddressClass::Metadata);
    }
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        class_of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(AddressClass::Loopback),
        // IPv4-mapped, RFC 4291 §2.5.5.2; NAT64, RFC 6052 §2.1; 6to4, RFC 3056.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
        [0xfe80..=0xfebf, ..] => Some(AddressClass::LinkLocal),
        [0xfc00..=0xfdff, ..] => Some(AddressClass::Private),
        // IETF protocols, Teredo among them, whose address of IPv4 is hidden; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some(AddressClass::Reserved),
        // Global unicast. All else is not assigned, or not for one host: local NAT64 (64:ff9b:1::/48) as well.
        [0x2000..=0x3fff, ..] => None,
        _ => Some(AddressClass::Reserved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Reach = Reach { private: true, loopback: true };

    fn class(address: &str) -> Option<AddressClass> {
        refused(address.parse().unwrap(), Reach::default())
    }

    #[test]
    fn public_addresses_alone_unless_told_otherwise() {
        for good in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::1.1.1.1", "::ffff:1.1.1.1"] {
            assert_eq!(class(good), None, "{good}");
        }
        for (bad, expected) in [
            ("127.0.0.1", AddressClass::Loopback),
            ("127.8.9.1", AddressClass::Loopback),
            ("::1", AddressClass::Loopback),
            ("::ffff:127.0.0.1", AddressClass::Loopback),
            ("64:ff9b::127.0.0.1", AddressClass::Loopback),
            ("10.1.2.3", AddressClass::Private),
            ("172.31.255.255", AddressClass::Private),
            ("192.168.0.1", AddressClass::Private),
            ("100.64.0.1", AddressClass::Private),
            ("fd12::1", AddressClass::Private),
            ("64:ff9b::10.0.0.1", AddressClass::Private),
            ("2002:a00:1::", AddressClass::Private),
        ] {
            assert_eq!(class(bad), Some(expected), "{bad}");
            assert_eq!(refused(bad.parse().unwrap(), ALL), None, "{bad} where it is allowed");
        }
    }

    #[test]
    fn some_addresses_are_never_connected_to() {
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
            "fd20:ce::254",
            "169.254.1.1",
            "fe80::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "ff02::1",
            "192.0.2.1",
            "198.18.0.1",
            "2001:db8::1",
            "2001::1",
            "64:ff9b:1::a00:1",
            "fec0::1",
            "100::1",
            "4000::1",
        ] {
            assert!(refused(bad.parse().unwrap(), ALL).is_some(), "{bad}");
        }
    }
}
