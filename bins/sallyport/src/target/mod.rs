//! Targets, through the gateway's own login: what `check --connect` looks at, and the catalogue that policy and
//! masking decide with.

pub mod inspect;
pub mod postgres;
pub mod tls;
