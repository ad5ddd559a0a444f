//! The opening of a session as typed steps: hello, consent, active. No socket
//! and no store here; [`super::ws`] brings the messages and awaits the answers.

use super::leases::{LeaseError, ResultError};
use super::snapshot::SessionRecord;
use crate::contribute;
use crate::random;
use crate::ticket::TicketSite;
use crate::time::UnixMs;
use ed25519_dalek::{Signature, VerifyingKey};
use raven_engine::{
    Beneficiary, CategorySet, ContributorId, NetworkPrefix, RefusedCategories, SessionProfile,
    Trust,
};
use raven_protocol::{
    Backend, DeviceClass, Earnings, FrameError, GoodbyeReason, Hello, Keeps, KernelId,
    MessageError, NumericClass, PROTOCOL_VERSION, Receipt, SessionId, ViewId,
};
use std::net::IpAddr;

/// How far a receipt's time may be from ours. Who signs counts on from the welcome's; a
/// device that slept has counted less, but its session is over before it is as late as this.
const RECEIPT_CLOCK_MS_MAX: u64 = 300_000;

/// Why a session ends: a reason for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// Decides the close code.
    pub reason: GoodbyeReason,
    /// Names the field and the limit.
    pub detail: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: GoodbyeReason, detail: impl Into<String>) -> Self {
        Refusal { reason, detail: detail.into() }
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        let reason = match error {
            FrameError::UnsupportedVersion { .. } => GoodbyeReason::Incompatible,
            _ => GoodbyeReason::BadFrame,
        };
        Refusal::new(reason, error.to_string())
    }
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        Refusal::new(GoodbyeReason::BadFrame, error.to_string())
    }
}

impl From<ResultError> for Refusal {
    fn from(error: ResultError) -> Self {
        Refusal::new(GoodbyeReason::BadFrame, error.to_string())
    }
}

impl From<LeaseError> for Refusal {
    fn from(error: LeaseError) -> Self {
        Refusal::new(GoodbyeReason::OutOfTurn, error.to_string())
    }
}

/// A session whose hello is good and whose receipt is awaited.
#[derive(Debug)]
pub struct AwaitConsent {
    session: SessionId,
    hello: Hello,
    site: Option<TicketSite>,
    terms: Terms,
}

/// What every receipt of a session must repeat.
#[derive(Clone, Debug)]
pub struct Terms {
    key: VerifyingKey,
    session_key: String,
    site_key: Option<String>,
    nonce: String,
    text_version: String,
    /// What the card showed; that of the first receipt, once that is there.
    view: Option<ViewId>,
    /// Whether words may have been agreed to that are shown without a browser.
    without_browser: bool,
    /// What the session computes on.
    backend: Backend,
    keeps: Keeps,
    earnings: Earnings,
    /// Of the last receipt.
    counter: u32,
}

/// A receipt for a higher share, or for more kinds of jobs, to be stored before it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Raise {
    /// Above that of every receipt before.
    pub counter: u32,
    /// The share that was agreed to.
    pub share: f64,
    /// The exact text that was signed.
    pub receipt: String,
    /// Its signature, in hex.
    pub signature: String,
}

impl Terms {
    /// Reads a receipt signed by the session's key, over its nonce, site and
    /// consent text and over `share`, and dated now.
    fn read(
        &self,
        text: &str,
        signature: &str,
        share: f64,
        now: UnixMs,
    ) -> Result<Receipt, Refusal> {
        let refuse = |detail: &str| Refusal::new(GoodbyeReason::NoConsent, detail);
        let bytes = parse_hex::<64>(signature)
            .ok_or_else(|| refuse("consent.signature: 128 lower-case hex digits expected"))?;
        self.key
            .verify_strict(text.as_bytes(), &Signature::from_bytes(&bytes))
            .map_err(|_| refuse("consent.signature: not made by session_key over this receipt"))?;
        let receipt = Receipt::from_text(text)
            .map_err(|error| Refusal::new(GoodbyeReason::NoConsent, error.to_string()))?;
        let differs = [
            ("text_version", self.is_text(&receipt.text_version)),
            ("site", receipt.site == self.site_key),
            ("share", receipt.share == share),
            // A visitor who allows both says so in either session.
            ("cpu", receipt.cpu || self.backend != Backend::Cpu),
            ("gpu", receipt.gpu || self.backend != Backend::Gpu),
            ("keeps", receipt.keeps == self.keeps),
            ("earnings", receipt.earnings == self.earnings),
            ("nonce", random::same_bytes(receipt.nonce.as_bytes(), self.nonce.as_bytes())),
            ("session_key", receipt.session_key == self.session_key),
        ];
        if let Some((field, _)) = differs.iter().find(|(_, matches)| !matches) {
            return Err(refuse(&format!("receipt.{field}: not that of this session")));
        }
        let apart_ms = receipt.time_ms.abs_diff(now.0.unsigned_abs());
        if apart_ms >= RECEIPT_CLOCK_MS_MAX {
            return Err(refuse(&format!(
                "receipt.time_ms: {apart_ms} ms from this coordinator's clock, the limit is \
                 {RECEIPT_CLOCK_MS_MAX}"
            )));
        }
        Ok(receipt)
    }

    fn is_text(&self, version: &str) -> bool {
        version == self.text_version
            || (self.without_browser && version == contribute::words_version())
    }

    /// Checks a later receipt, for a share above the present one, or for a kind of job
    /// that was refused.
    ///
    /// # Errors
    /// [`GoodbyeReason::NoConsent`] naming the field that is wrong.
    pub fn raise(
        &mut self,
        text: String,
        signature: String,
        share: f64,
        refuses: CategorySet,
        now: UnixMs,
    ) -> Result<Raise, Refusal> {
        let receipt = self.read(&text, &signature, share, now)?;
        if receipt.view != self.view {
            let detail = "receipt.view: not that of this session";
            return Err(Refusal::new(GoodbyeReason::NoConsent, detail));
        }
        if receipt.refuses.iter().copied().collect::<CategorySet>() != refuses {
            let detail = "receipt.refuses: not the kinds of jobs that the pace refuses";
            return Err(Refusal::new(GoodbyeReason::NoConsent, detail));
        }
        if receipt.counter <= self.counter {
            let detail = format!(
                "receipt.counter: {} is not above {}, that of the last receipt",
                receipt.counter, self.counter
            );
            return Err(Refusal::new(GoodbyeReason::NoConsent, detail));
        }
        self.counter = receipt.counter;
        Ok(Raise { counter: receipt.counter, share, receipt: text, signature })
    }
}

/// A session that may get work.
#[derive(Debug)]
pub struct Consented {
    /// To be stored before anything is sent.
    pub record: SessionRecord,
    /// What the engine is told.
    pub profile: SessionProfile,
    /// For the receipts that may follow.
    pub terms: Terms,
}

/// The modules that sessions may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modules {
    pub kernel: KernelId,
    /// None where this coordinator serves no GPU module.
    pub gpu: Option<KernelId>,
}

/// Checks that a hello speaks this protocol and runs a module of ours, before its
/// ticket is looked up.
///
/// # Errors
/// [`GoodbyeReason::Incompatible`].
pub fn check_hello(hello: &Hello, modules: Modules) -> Result<(), Refusal> {
    if hello.protocol != PROTOCOL_VERSION {
        let detail =
            format!("hello.protocol: {} is not supported, {PROTOCOL_VERSION} is", hello.protocol);
        return Err(Refusal::new(GoodbyeReason::Incompatible, detail));
    }
    let (theirs, ours) = match hello.numeric {
        NumericClass::Cpu { kernel } => (kernel, Some(modules.kernel)),
        NumericClass::Gpu { kernel } => (kernel, modules.gpu),
    };
    let detail = match ours {
        Some(ours) if ours == theirs => return Ok(()),
        Some(ours) => format!("hello.numeric.kernel: {theirs} is not run here, {ours} is"),
        None => "hello.numeric.class: no GPU module is run here".into(),
    };
    Err(Refusal::new(GoodbyeReason::Incompatible, detail))
}

impl AwaitConsent {
    /// Takes a checked hello; draws the session's id and nonce.
    ///
    /// # Errors
    /// [`GoodbyeReason::BadFrame`] where `session_key` is no usable Ed25519 key.
    pub fn new(
        hello: Hello,
        site: Option<TicketSite>,
        text_version: String,
    ) -> Result<Self, Refusal> {
        let bad = |detail: &str| Refusal::new(GoodbyeReason::BadFrame, detail);
        let bytes = parse_hex::<32>(&hello.session_key)
            .ok_or_else(|| bad("hello.session_key: 64 lower-case hex digits expected"))?;
        let key = VerifyingKey::from_bytes(&bytes)
            .ok()
            .filter(|key| !key.is_weak())
            .ok_or_else(|| bad("hello.session_key: not an Ed25519 public key"))?;
        let terms = Terms {
            key,
            session_key: hello.session_key.clone(),
            site_key: site.as_ref().map(|site| site.site_key.clone()),
            nonce: hex(&random::bytes::<32>()),
            text_version,
            view: None,
            without_browser: site.is_none() && hello.device.class == DeviceClass::Server,
            backend: hello.numeric.backend(),
            keeps: hello.keeps,
            earnings: hello.earnings,
            counter: 0,
        };
        Ok(AwaitConsent { session: SessionId(random::nonzero_u64()), hello, site, terms })
    }

    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// To be signed.
    pub fn nonce(&self) -> &str {
        &self.terms.nonce
    }

    /// Checks the receipt: signed by the hello's key, over this session's
    /// nonce, site, share and consent text. What it refuses is the visitor's word, and
    /// whether it may name its view is the store's.
    ///
    /// # Errors
    /// [`GoodbyeReason::NoConsent`] naming the field that differs.
    pub fn consent(
        self,
        text: String,
        signature: String,
        prefix: NetworkPrefix,
        now: UnixMs,
    ) -> Result<Consented, Refusal> {
        let receipt = self.terms.read(&text, &signature, self.hello.share, now)?;
        if receipt.counter != 0 {
            let detail = format!("receipt.counter: {}, a session begins at 0", receipt.counter);
            return Err(Refusal::new(GoodbyeReason::NoConsent, detail));
        }
        if receipt.view.is_none() && self.site.is_some() {
            let detail = "receipt.view: missing, it names what the page's card has shown";
            return Err(Refusal::new(GoodbyeReason::NoConsent, detail));
        }
        let terms = Terms { view: receipt.view, ..self.terms };
        let refuses = receipt.refuses.into_iter().collect();
        Ok(AwaitConsent { terms, ..self }.into_consented(text, signature, prefix, refuses))
    }

    fn into_consented(
        self,
        receipt: String,
        signature: String,
        prefix: NetworkPrefix,
        by_visitor: CategorySet,
    ) -> Consented {
        let beneficiary = beneficiary(&self.hello);
        let Hello { numeric, device, share, workers, traffic_bytes_left, .. } = self.hello;
        let contributor = ContributorId(self.terms.key.to_bytes());
        let (site, origin, ticket, by_site) = match self.site {
            Some(TicketSite { site, origin, ticket, refuses, .. }) => {
                (Some(site), origin, Some(ticket), refuses)
            }
            None => (None, None, None, CategorySet::EMPTY),
        };
        let profile = SessionProfile {
            contributor,
            site,
            beneficiary,
            prefix,
            device: device.class,
            numeric,
            flops_per_s: device.flops_per_s,
            share,
            workers,
            memory_bytes: device.memory_bytes,
            traffic_bytes: traffic_bytes_left,
            refused: RefusedCategories { by_visitor, by_site },
            trust: Trust::default(),
            operator: false,
        };
        let session = self.session;
        let record = SessionRecord {
            session,
            contributor,
            site,
            origin,
            ticket,
            prefix,
            device,
            numeric,
            share,
            workers,
            refuses: by_visitor,
            view: self.terms.view,
            receipt,
            signature,
        };
        Consented { record, profile, terms: self.terms }
    }
}

/// Whose a session's earnings are. A key that is gone with the visit has nobody who
/// could claim what it earned.
fn beneficiary(hello: &Hello) -> Beneficiary {
    match (hello.keeps, hello.earnings) {
        (Keeps::Key, Earnings::Mine) => Beneficiary::Contributor,
        (Keeps::Visit, _) | (Keeps::Key, Earnings::Site) => Beneficiary::Site,
    }
}

/// The network that an address belongs to: /24 of IPv4 (written as a mapped
/// IPv6 address), /48 of IPv6, zero-filled.
pub fn network_prefix(address: IpAddr) -> NetworkPrefix {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            NetworkPrefix([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, 0])
        }
        IpAddr::V6(v6) => {
            let mut prefix = v6.octets();
            prefix[6..].fill(0);
            NetworkPrefix(prefix)
        }
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads what [`hex`] writes.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let lower = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * N || !digits.iter().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use raven_protocol::{Device, DeviceClass};

    const KERNEL: KernelId = KernelId([7; 32]);
    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn hello(key: &SigningKey) -> Hello {
        Hello {
            protocol: PROTOCOL_VERSION,
            numeric: NumericClass::Cpu { kernel: KERNEL },
            device: Device {
                class: DeviceClass::Desktop,
                cores: 8,
                memory_bytes: 1 << 30,
                flops_per_s: 1_000_000_000,
            },
            share: 0.25,
            workers: 2,
            session_key: hex(key.verifying_key().as_bytes()),
            ticket: None,
            traffic_bytes_left: None,
            keeps: Keeps::Key,
            earnings: Earnings::Mine,
        }
    }

    fn waiting(key: &SigningKey) -> AwaitConsent {
        AwaitConsent::new(hello(key), None, "1".into()).expect("a good hello")
    }

    fn receipt(waiting: &AwaitConsent) -> Receipt {
        Receipt {
            text_version: "1".into(),
            site: None,
            view: None,
            share: 0.25,
            nonce: waiting.nonce().into(),
            session_key: waiting.hello.session_key.clone(),
            cpu: true,
            gpu: false,
            refuses: Vec::new(),
            time_ms: NOW.0.unsigned_abs(),
            keeps: Keeps::Key,
            earnings: Earnings::Mine,
            counter: 0,
        }
    }

    fn answer(
        waiting: AwaitConsent,
        receipt: &Receipt,
        key: &SigningKey,
    ) -> Result<Consented, Refusal> {
        let text = serde_json::to_string(receipt).expect("serializes");
        let signature = hex(&key.sign(text.as_bytes()).to_bytes());
        waiting.consent(text, signature, NetworkPrefix([0; 16]), NOW)
    }

    #[test]
    fn a_true_receipt_opens_the_session() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let waiting = waiting(&key);
        let receipt = receipt(&waiting);
        let consented = answer(waiting, &receipt, &key).expect("consents");
        assert_eq!(consented.profile.contributor.0, key.verifying_key().to_bytes());
        assert_eq!(consented.record.receipt, serde_json::to_string(&receipt).expect("serializes"));
    }

    #[test]
    fn every_field_of_the_receipt_must_be_this_sessions() {
        let key = SigningKey::from_bytes(&[1; 32]);
        type Change = fn(&mut Receipt);
        let changes: [(&str, Change); 11] = [
            ("text_version", |receipt| receipt.text_version = "0".into()),
            ("site", |receipt| receipt.site = Some("pk_test_other".into())),
            ("share", |receipt| receipt.share = 1.0),
            ("nonce", |receipt| receipt.nonce = "00".repeat(32)),
            ("session_key", |receipt| receipt.session_key = "00".repeat(32)),
            ("counter", |receipt| receipt.counter = 1),
            ("cpu", |receipt| receipt.cpu = false),
            ("keeps", |receipt| receipt.keeps = Keeps::Visit),
            ("earnings", |receipt| receipt.earnings = Earnings::Site),
            ("time_ms", |receipt| receipt.time_ms += RECEIPT_CLOCK_MS_MAX),
            ("time_ms", |receipt| receipt.time_ms -= RECEIPT_CLOCK_MS_MAX),
        ];
        for (field, change) in changes {
            let waiting = waiting(&key);
            let mut receipt = receipt(&waiting);
            change(&mut receipt);
            let refusal = answer(waiting, &receipt, &key).expect_err(field);
            assert_eq!(refusal.reason, GoodbyeReason::NoConsent);
            assert!(refusal.detail.contains(field), "{refusal}");
        }
    }

    #[test]
    fn words_that_a_terminal_shows_are_taken_from_servers_without_a_ticket() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let site = || TicketSite {
            site: raven_engine::SiteId(9),
            site_key: "pk_test_other".into(),
            ticket: crate::ticket::UsedTicket { number: 1, keys_max: 1, is_elsewhere: false },
            origin: None,
            refuses: CategorySet::EMPTY,
        };
        let cases = [
            (DeviceClass::Server, None, true),
            (DeviceClass::Desktop, None, false),
            (DeviceClass::Server, Some(site()), false),
        ];
        for (class, site, is_taken) in cases {
            let mut hello = hello(&key);
            hello.device.class = class;
            let site_key = site.as_ref().map(|site| site.site_key.clone());
            let waiting = AwaitConsent::new(hello, site, "1".into()).expect("a good hello");
            let mut receipt = receipt(&waiting);
            (receipt.text_version, receipt.site) = (contribute::words_version(), site_key);
            let answer = answer(waiting, &receipt, &key);
            assert_eq!(answer.is_ok(), is_taken, "{class:?}: {answer:?}");
        }
    }

    #[test]
    fn a_gpu_needs_a_receipt_that_allows_it() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let numeric = NumericClass::Gpu { kernel: KERNEL };
        let waiting = || {
            let hello = Hello { numeric, workers: 1, ..hello(&key) };
            AwaitConsent::new(hello, None, "1".into()).expect("a good hello")
        };
        let (without, with) = (waiting(), waiting());
        let silent = receipt(&without);
        let refusal = answer(without, &silent, &key).expect_err("not allowed");
        assert_eq!(refusal.reason, GoodbyeReason::NoConsent);
        assert!(refusal.detail.contains("receipt.gpu"), "{refusal}");
        let allowed = Receipt { gpu: true, ..receipt(&with) };
        let mut consented = answer(with, &allowed, &key).expect("consents");
        assert_eq!(consented.profile.numeric, numeric);
        let silent = Receipt { gpu: false, share: 0.5, counter: 1, ..allowed };
        let text = serde_json::to_string(&silent).expect("serializes");
        let signature = hex(&key.sign(text.as_bytes()).to_bytes());
        let refusal = consented
            .terms
            .raise(text, signature, 0.5, CategorySet::EMPTY, NOW)
            .expect_err("taken back");
        assert!(refusal.detail.contains("receipt.gpu"), "{refusal}");
    }

    #[test]
    fn a_receipt_signed_by_another_key_is_no_consent() {
        let (key, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let waiting = waiting(&key);
        let receipt = receipt(&waiting);
        let refusal = answer(waiting, &receipt, &other).expect_err("forged");
        assert_eq!(refusal.reason, GoodbyeReason::NoConsent);
        assert!(refusal.detail.contains("signature"), "{refusal}");
    }

    #[test]
    fn a_higher_share_needs_a_receipt_of_its_own() {
        let (key, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let waiting = waiting(&key);
        let first = receipt(&waiting);
        let mut terms = answer(waiting, &first, &key).expect("consents").terms;
        let mut raise = |receipt: &Receipt, key: &SigningKey, share: f64| {
            let text = serde_json::to_string(receipt).expect("serializes");
            let signature = hex(&key.sign(text.as_bytes()).to_bytes());
            terms.raise(text, signature, share, CategorySet::EMPTY, NOW)
        };
        let higher = Receipt { share: 0.5, counter: 1, ..first.clone() };
        let refused = [
            ("signature", higher.clone(), &other, 0.5),
            ("share", higher.clone(), &key, 0.75),
            ("nonce", Receipt { nonce: "00".repeat(32), ..higher.clone() }, &key, 0.5),
            ("text_version", Receipt { text_version: "0".into(), ..higher.clone() }, &key, 0.5),
            ("view", Receipt { view: Some(ViewId([9; 32])), ..higher.clone() }, &key, 0.5),
            ("counter", first, &key, 0.25),
        ];
        for (field, receipt, key, share) in refused {
            let refusal = raise(&receipt, key, share).expect_err(field);
            assert_eq!(refusal.reason, GoodbyeReason::NoConsent);
            assert!(refusal.detail.contains(field), "{refusal}");
        }
        assert_eq!(raise(&higher, &key, 0.5).expect("agreed to").counter, 1);
        let replayed = raise(&higher, &key, 0.5).expect_err("replayed");
        assert!(replayed.detail.contains("counter: 1 is not above 1"), "{replayed}");
        let next = Receipt { share: 1.0, counter: 7, ..higher };
        assert_eq!(raise(&next, &key, 1.0).expect("agreed to").share, 1.0);
    }

    #[test]
    fn keys_and_kernels_that_are_not_ours_are_refused() {
        let key = SigningKey::from_bytes(&[1; 32]);
        for bad in ["", "zz", &"00".repeat(32), &"FF".repeat(32)] {
            let hello = Hello { session_key: bad.to_string(), ..hello(&key) };
            let refusal = AwaitConsent::new(hello, None, "1".into()).expect_err(bad);
            assert!(refusal.detail.contains("session_key"), "{refusal}");
        }
        let modules = Modules { kernel: KERNEL, gpu: None };
        let others = Modules { kernel: KernelId([8; 32]), gpu: Some(KernelId([9; 32])) };
        let refusal = check_hello(&hello(&key), others).expect_err("another kernel");
        assert_eq!(refusal.reason, GoodbyeReason::Incompatible);
        let old = Hello { protocol: 0, ..hello(&key) };
        assert!(check_hello(&old, modules).expect_err("old").detail.contains("protocol"));
        assert_eq!(check_hello(&hello(&key), modules), Ok(()));
        let gpu = |kernel| Hello { numeric: NumericClass::Gpu { kernel }, ..hello(&key) };
        let refusal = check_hello(&gpu(KERNEL), modules).expect_err("no GPU module");
        assert!(refusal.detail.contains("no GPU module"), "{refusal}");
        let refusal = check_hello(&gpu(others.kernel), others).expect_err("the CPU's module");
        assert_eq!(refusal.reason, GoodbyeReason::Incompatible);
        assert_eq!(check_hello(&gpu(KernelId([9; 32])), others), Ok(()));
    }

    #[test]
    fn neighbours_share_a_prefix_and_families_do_not() {
        let of = |text: &str| network_prefix(text.parse().expect("an address"));
        assert_eq!(of("192.0.2.7"), of("192.0.2.200"));
        assert_eq!(of("192.0.2.7"), of("::ffff:192.0.2.9"));
        assert_ne!(of("192.0.2.7"), of("192.0.3.7"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:ffff::2"));
        assert_ne!(of("2001:db8:1::"), of("2001:db8:2::"));
    }
}
