//! What a card shows beside its words before anybody agrees, and nothing else, as one
//! document. A receipt names it by its content, so that it can be said later what whoever
//! signed has seen. The words themselves have a version of their own, in the document and in
//! the receipt; a site's name never changes, and its key is in the receipt.

use raven_engine::{Category, CategorySet};
use raven_protocol::ViewId;
use serde::{Deserialize, Serialize};

/// How long a view may be named after a card got it. A yes holds for a day, and a card that
/// stays open gets another one long before.
pub const VIEW_MS_MAX: i64 = 48 * 3_600_000;
/// Kinds of work that a card names; it has room for few, and names all that it is told.
pub const WORK_MAX: usize = 2;

/// For whom, and for what kind of job, somebody may be asked to compute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Work {
    pub category: Category,
    /// A pseudonym.
    pub requester: String,
}

/// What would be computed now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The kinds of jobs that the site takes: the card offers no others.
    pub categories: CategorySet,
    /// Some of what waits, [`WORK_MAX`] at most.
    pub work: Vec<Work>,
    /// How much more waits.
    pub more: usize,
}

/// What a card shows. Its fields are written in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardView {
    text_version: String,
    /// Megabytes that a visit may move.
    visit_mb: String,
    /// Which GPUs are offered.
    gpu: String,
    /// Absent where the card says that it is told as it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<Queue>,
}

/// A view as it is kept and named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedView {
    pub id: ViewId,
    /// The exact text that the id is of.
    pub document: String,
}

impl CardView {
    /// What every card shows, whatever waits.
    pub fn new(text_version: &str, visit_mb: &str, gpu: &str) -> Self {
        CardView {
            text_version: text_version.into(),
            visit_mb: visit_mb.into(),
            gpu: gpu.into(),
            queue: None,
        }
    }

    /// With what would be computed now.
    #[must_use]
    pub fn with_queue(self, queue: Queue) -> Self {
        CardView { queue: Some(queue), ..self }
    }

    /// Reads the text of one; `None` where it is none.
    pub fn read(document: &str) -> Option<Self> {
        // Earlier ones say more than this, which no card showed.
        serde_json::from_str(document).ok()
    }

    /// The kinds of jobs that this card did not offer, so that a yes to it was to none of
    /// them. A card that was told of nothing offers all.
    pub fn hides(&self) -> CategorySet {
        self.queue.as_ref().map_or(CategorySet::EMPTY, |queue| queue.categories.complement())
    }

    /// What is shown here that is not as `now` says, whatever waits.
    pub fn differs_from(&self, now: &CardView) -> Option<&'static str> {
        let fields = [
            ("text_version", self.text_version == now.text_version),
            ("visit_mb", self.visit_mb == now.visit_mb),
            ("gpu", self.gpu == now.gpu),
        ];
        fields.into_iter().find_map(|(field, is_same)| (!is_same).then_some(field))
    }

    /// Its text, and the name that this gives it.
    pub fn named(&self) -> NamedView {
        // Names, numbers and lists of them: there is nothing that JSON could not hold.
        let document = serde_json::to_string(self).unwrap_or_default();
        NamedView { id: view_id(&document), document }
    }
}

/// The name of a view: blake3 of its text.
pub fn view_id(document: &str) -> ViewId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"raven view 1");
    hasher.update(&(document.len() as u64).to_le_bytes());
    hasher.update(document.as_bytes());
    ViewId(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_known_by_all_that_it_shows() {
        let work =
            |requester: &str| Work { category: Category::Vision, requester: requester.into() };
        let queue = |names: &[&str], more| Queue {
            categories: CategorySet::EMPTY.with(Category::Vision),
            work: names.iter().copied().map(work).collect(),
            more,
        };
        let plain = CardView::new("1", "25", "no");
        let views = [
            plain.clone(),
            CardView::new("2", "25", "no"),
            CardView::new("1", "26", "no"),
            CardView::new("1", "25", "any"),
            plain.clone().with_queue(queue(&[], 0)),
            plain.clone().with_queue(queue(&[], 1)),
            plain.clone().with_queue(queue(&["Amber Heron"], 0)),
            plain.clone().with_queue(queue(&["Amber Heron", "Jade Kite"], 0)),
            plain.clone().with_queue(Queue { categories: CategorySet::EMPTY, ..queue(&[], 0) }),
        ];
        let ids = views.map(|view| view.named().id);
        for (index, id) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(id), "view {index}");
        }
        assert_eq!(plain.named(), plain.named(), "and by nothing else");
        let longest = || Work { category: Category::Language, requester: "x".repeat(40) };
        let work = (0..WORK_MAX).map(|_| longest()).collect();
        let categories = CategorySet::EMPTY.complement();
        let all = Queue { categories, work, more: usize::MAX };
        let length = plain.with_queue(all).named().document.len();
        assert!(length < 2048, "{length} bytes");
    }

    #[test]
    fn a_view_is_read_back_and_says_what_it_did_not_offer_and_what_is_no_longer_so() {
        let plain = CardView::new("1", "25", "no");
        let takes = CategorySet::EMPTY.with(Category::Vision).with(Category::Tabular);
        let queue = Queue { categories: takes, work: Vec::new(), more: 0 };
        let told = plain.clone().with_queue(queue);
        for view in [&plain, &told] {
            assert_eq!(CardView::read(&view.named().document).as_ref(), Some(view));
            assert_eq!(view.differs_from(&plain), None);
        }
        assert_eq!((plain.hides(), told.hides()), (CategorySet::EMPTY, takes.complement()));
        // One that was kept when views said more.
        let early = r#"{"text_version":"1","visit_mb":"25","gpu":"no","rates":{"phone":1},"margin_percent":{"fee":2},
            "queue":{"categories":["vision","tabular"],"work":[],"more":0}}"#;
        assert_eq!(CardView::read(early), Some(told.clone()));
        assert_eq!(CardView::read("{}"), None);
        let others = [("2", "25", "no"), ("1", "26", "no"), ("1", "25", "any")];
        let others = others.map(|(text, mb, gpu)| CardView::new(text, mb, gpu));
        let differs = others.each_ref().map(|now| told.differs_from(now));
        assert_eq!(differs, [Some("text_version"), Some("visit_mb"), Some("gpu")]);
    }
}
