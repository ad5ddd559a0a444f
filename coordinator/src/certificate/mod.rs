//! Certificates of strict jobs: what a buyer of a model checks without trusting
//! the coordinator, a contributor or the seller.
//!
//! While a job trains, the store links its rounds to a chain ([`chain`]) and
//! some states are published ([`keep`]). After its end the certificate
//! ([`document`]) names everything that fixes the computation, the chain's last
//! link and the model, and is signed ([`key`]). A bundle ([`bundle`]) holds it
//! with all inputs; [`verify`] runs rounds of it again, bit for bit.

pub mod bundle;
pub mod chain;
pub mod command;
pub mod document;
pub mod issue;
pub mod keep;
pub mod key;
mod replay;
pub mod tar;
pub mod verify;

pub use document::{Body, Certificate, CertificateError, Measured};
pub use key::{CertificateKey, Signatory};
