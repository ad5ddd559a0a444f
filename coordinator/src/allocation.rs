//! What a session was given of its contributor's machine, as lines of a chain of
//! hashes: whoever keeps one hash can tell whether anything before it was changed.

use crate::runtime::session::parse_hex;
use ed25519_dalek::{Signature, VerifyingKey};
use raven_engine::{CategorySet, ContributorId};
use raven_protocol::{Backend, SessionId};

/// Why there is a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllocationKind {
    /// The session begins, with a signed receipt.
    Consent,
    /// A higher share, or a kind of job that is refused no longer, with a signed receipt.
    Raise,
    /// A lower share, another number of workers, or more that is refused: nothing need be signed.
    Change,
    /// The visitor took it back.
    Revoke,
    /// The session is over for any other reason.
    End,
}

impl AllocationKind {
    /// All of them.
    pub const ALL: [AllocationKind; 5] = [
        AllocationKind::Consent,
        AllocationKind::Raise,
        AllocationKind::Change,
        AllocationKind::Revoke,
        AllocationKind::End,
    ];

    /// The name in stores and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            AllocationKind::Consent => "consent",
            AllocationKind::Raise => "raise",
            AllocationKind::Change => "change",
            AllocationKind::Revoke => "revoke",
            AllocationKind::End => "end",
        }
    }

    /// Whether the visitor has signed for it.
    pub const fn is_signed(self) -> bool {
        matches!(self, AllocationKind::Consent | AllocationKind::Raise)
    }
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    pub contributor: ContributorId,
    pub session: SessionId,
    pub kind: AllocationKind,
    /// Millionths of the machine; nothing once the session is over.
    pub share_ppm: u32,
    /// Whether the session has the processor.
    pub cpu: bool,
    /// Whether it has the GPU.
    pub gpu: bool,
    pub workers: u32,
    /// The kinds of jobs that the visitor refuses; none once the session is over.
    pub refuses: CategorySet,
    /// The blake3 of the signed receipt, where there is one.
    pub receipt: Option<[u8; 32]>,
}

impl Allocation {
    /// Of a session that computes on `backend`.
    pub fn of(contributor: ContributorId, session: SessionId, backend: Backend) -> Self {
        Allocation {
            at_ms: 0,
            contributor,
            session,
            kind: AllocationKind::Consent,
            share_ppm: 0,
            cpu: backend == Backend::Cpu,
            gpu: backend == Backend::Gpu,
            workers: 0,
            refuses: CategorySet::EMPTY,
            receipt: None,
        }
    }

    /// The line after a session's consent to `receipt`, for `share` in (0, 1].
    #[must_use]
    pub fn consented(self, share: f64, workers: u32, refuses: CategorySet, receipt: &str) -> Self {
        let receipt = Some(receipt_hash(receipt));
        let kind = AllocationKind::Consent;
        Allocation { kind, share_ppm: share_ppm(share), workers, refuses, receipt, ..self }
    }

    /// The line after this one of the same session. A higher share, and what is refused no
    /// longer, was signed for in `receipt`.
    #[must_use]
    pub fn paced(
        self,
        share: f64,
        workers: u32,
        refuses: CategorySet,
        receipt: Option<[u8; 32]>,
    ) -> Self {
        let share_ppm = share_ppm(share);
        let is_raised = share_ppm > self.share_ppm || !self.refuses.is_within(refuses);
        let kind = if is_raised { AllocationKind::Raise } else { AllocationKind::Change };
        let receipt = receipt.filter(|_| is_raised);
        Allocation { kind, share_ppm, workers, refuses, receipt, ..self }
    }

    /// The last line of the session.
    #[must_use]
    pub fn over(self, kind: AllocationKind) -> Self {
        let (refuses, receipt) = (CategorySet::EMPTY, None);
        Allocation {
            kind,
            share_ppm: 0,
            cpu: false,
            gpu: false,
            workers: 0,
            refuses,
            receipt,
            ..self
        }
    }
}

/// Whether a contributor's key has signed a receipt's text, byte by byte; the signature in hex.
pub fn is_signed_by(contributor: &ContributorId, text: &str, signature: &str) -> bool {
    let (Ok(key), Some(bytes)) =
        (VerifyingKey::from_bytes(&contributor.0), parse_hex::<64>(signature))
    else {
        return false;
    };
    key.verify_strict(text.as_bytes(), &Signature::from_bytes(&bytes)).is_ok()
}

/// The blake3 of a receipt's text.
pub fn receipt_hash(receipt: &str) -> [u8; 32] {
    *blake3::hash(receipt.as_bytes()).as_bytes()
}

/// A share in (0, 1] in whole millionths: any that is there is at least one.
fn share_ppm(share: f64) -> u32 {
    // In 1..=1e6.
    ((share * 1e6).round() as u32).clamp(1, 1_000_000)
}

/// The chain's hash after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationHash(pub [u8; 32]);

impl AllocationHash {
    /// Before the first line.
    pub const START: AllocationHash = AllocationHash([0; 32]);

    /// The hash after the line of that number.
    #[must_use]
    pub fn then(self, number: u64, line: &Allocation) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"raven allocation 1");
        hasher.update(&self.0);
        hasher.update(&number.to_le_bytes());
        hasher.update(&line.at_ms.to_le_bytes());
        hasher.update(&line.contributor.0);
        hasher.update(&line.session.0.to_le_bytes());
        hasher.update(&(line.kind.as_str().len() as u64).to_le_bytes());
        hasher.update(line.kind.as_str().as_bytes());
        hasher.update(&line.share_ppm.to_le_bytes());
        hasher.update(&[u8::from(line.cpu), u8::from(line.gpu)]);
        hasher.update(&line.workers.to_le_bytes());
        hasher.update(&[u8::from(line.receipt.is_some())]);
        hasher.update(&line.receipt.unwrap_or_default());
        // Lines that were written before anything could be refused have no such byte.
        if !line.refuses.is_empty() {
            hasher.update(&[line.refuses.bits()]);
        }
        AllocationHash(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raven_engine::Category;

    const NONE: CategorySet = CategorySet::EMPTY;

    #[test]
    fn the_hash_depends_on_every_field_and_on_what_was_before() {
        let line = Allocation::of(ContributorId([1; 32]), SessionId(2), Backend::Cpu)
            .consented(0.2, 2, NONE, "receipt");
        assert_eq!((line.share_ppm, line.cpu, line.gpu), (200_000, true, false));
        let other = AllocationHash([1; 32]);
        let hashes = [
            AllocationHash::START.then(1, &line),
            other.then(1, &line),
            AllocationHash::START.then(2, &line),
            AllocationHash::START.then(1, &Allocation { at_ms: 1, ..line }),
            AllocationHash::START
                .then(1, &Allocation { contributor: ContributorId([2; 32]), ..line }),
            AllocationHash::START.then(1, &Allocation { session: SessionId(3), ..line }),
            AllocationHash::START.then(1, &Allocation { kind: AllocationKind::Raise, ..line }),
            AllocationHash::START.then(1, &Allocation { share_ppm: 1, ..line }),
            AllocationHash::START.then(1, &Allocation { cpu: false, ..line }),
            AllocationHash::START.then(1, &Allocation { gpu: true, ..line }),
            AllocationHash::START.then(1, &Allocation { workers: 3, ..line }),
            AllocationHash::START
                .then(1, &Allocation { refuses: NONE.with(Category::Vision), ..line }),
            AllocationHash::START
                .then(1, &Allocation { refuses: NONE.with(Category::Other), ..line }),
            AllocationHash::START.then(1, &Allocation { receipt: None, ..line }),
            AllocationHash::START.then(1, &Allocation { receipt: Some([0; 32]), ..line }),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "variant {index}");
        }
    }

    #[test]
    fn a_higher_share_is_a_raise_and_what_is_over_has_nothing() {
        let line = Allocation::of(ContributorId([1; 32]), SessionId(2), Backend::Gpu)
            .consented(0.2, 1, NONE, "receipt");
        let raised = line.paced(0.5, 1, NONE, Some([7; 32]));
        assert_eq!((raised.kind, raised.receipt), (AllocationKind::Raise, Some([7; 32])));
        let lowered = raised.paced(0.1, 1, NONE, Some([7; 32]));
        assert_eq!((lowered.kind, lowered.receipt), (AllocationKind::Change, None));
        assert_eq!(line.paced(0.2, 2, NONE, None).kind, AllocationKind::Change);
        assert_eq!(line.paced(f64::MIN_POSITIVE, 1, NONE, None).share_ppm, 1);
        let choosy = line.paced(0.2, 1, NONE.with(Category::Finance), Some([7; 32]));
        assert_eq!((choosy.kind, choosy.receipt), (AllocationKind::Change, None));
        let other = choosy.paced(0.1, 1, NONE.with(Category::Vision), Some([8; 32]));
        assert_eq!((other.kind, other.receipt), (AllocationKind::Raise, Some([8; 32])));
        let over = raised.over(AllocationKind::Revoke);
        assert_eq!((over.share_ppm, over.cpu, over.gpu, over.workers), (0, false, false, 0));
    }
}
