//! What a card shows beside its words before anybody agrees, and what holds at that moment, as
//! one document. A receipt names it by its content, so that it can be said later what whoever
//! signed has seen. The words themselves have a version of their own, in the document and in
//! the receipt; a site's name never changes, and its key is in the receipt.

use raven_engine::ledger::pay;
use raven_engine::{Category, Rates};
use raven_protocol::ViewId;
use serde::Serialize;

/// How long a view may be named after a card got it. A yes holds for a day, and a card that
/// stays open gets another one long before.
pub const VIEW_MS_MAX: i64 = 48 * 3_600_000;
/// Kinds of work that one view names; a card has room for few.
pub const WORK_MAX: usize = 8;

/// For whom, and for what kind of job, somebody may be asked to compute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Work {
    pub category: Category,
    /// A pseudonym.
    pub requester: String,
}

/// What would be computed now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// The kinds of jobs that the site takes.
    pub categories: Vec<Category>,
    /// Some of what waits, [`WORK_MAX`] at most.
    pub work: Vec<Work>,
    /// How much more waits.
    pub more: usize,
}

/// What goes to whom on top of what contributors earn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Margin {
    master_node: u64,
    partner: u64,
    fee: u64,
}

/// What a card shows. Its fields are written in this order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CardView<'a> {
    text_version: &'a str,
    /// Megabytes that a visit may move.
    visit_mb: &'a str,
    /// Which GPUs are offered.
    gpu: &'a str,
    /// Pico-USD per calculation of each class, and what is on top.
    rates: &'a Rates,
    margin_percent: Margin,
    /// Absent where the card says that it is told as it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<Queue>,
}

/// A view as it is kept and named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedView {
    pub id: ViewId,
    /// The exact text that the id is of.
    pub document: String,
    /// Whether it names what would be computed: there are many of these, and few others.
    pub has_queue: bool,
}

impl<'a> CardView<'a> {
    /// What every card shows, whatever waits.
    pub fn new(text_version: &'a str, visit_mb: &'a str, gpu: &'a str, rates: &'a Rates) -> Self {
        let margin_percent = Margin {
            master_node: pay::MASTER_PERCENT as u64,
            partner: pay::PARTNER_PERCENT as u64,
            fee: pay::FEE_PERCENT as u64,
        };
        CardView { text_version, visit_mb, gpu, rates, margin_percent, queue: None }
    }

    /// With what would be computed now.
    #[must_use]
    pub fn with_queue(self, queue: Queue) -> Self {
        CardView { queue: Some(queue), ..self }
    }

    /// Its text, and the name that this gives it.
    pub fn named(&self) -> NamedView {
        // Names, numbers and lists of them: there is nothing that JSON could not hold.
        let document = serde_json::to_string(self).unwrap_or_default();
        NamedView { id: view_id(&document), document, has_queue: self.queue.is_some() }
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
    use raven_engine::money::PicoUsd;

    #[test]
    fn a_view_is_known_by_all_that_it_shows() {
        let work =
            |requester: &str| Work { category: Category::Vision, requester: requester.into() };
        let queue = |names: &[&str], more| Queue {
            categories: vec![Category::Vision],
            work: names.iter().copied().map(work).collect(),
            more,
        };
        let dear = Rates { phone: PicoUsd(12_001), ..Rates::USUAL };
        let plain = CardView::new("1", "25", "no", &Rates::USUAL);
        let views = [
            plain.clone(),
            CardView::new("2", "25", "no", &Rates::USUAL),
            CardView::new("1", "26", "no", &Rates::USUAL),
            CardView::new("1", "25", "any", &Rates::USUAL),
            CardView::new("1", "25", "no", &dear),
            plain.clone().with_queue(queue(&[], 0)),
            plain.clone().with_queue(queue(&[], 1)),
            plain.clone().with_queue(queue(&["Amber Heron"], 0)),
            plain.clone().with_queue(queue(&["Amber Heron", "Jade Kite"], 0)),
            plain.clone().with_queue(Queue { categories: Vec::new(), ..queue(&[], 0) }),
        ];
        let ids = views.map(|view| view.named().id);
        for (index, id) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(id), "view {index}");
        }
        assert_eq!(plain.named(), plain.named(), "and by nothing else");
        let longest =
            [Category::Language; 8].map(|category| Work { category, requester: "x".repeat(40) });
        let categories = vec![Category::Language; 6];
        let all = Queue { categories, work: longest.to_vec(), more: usize::MAX };
        let length = plain.with_queue(all).named().document.len();
        assert!(length < 2048, "{length} bytes");
    }
}
