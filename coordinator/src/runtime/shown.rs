//! What the card showed to which a session's receipt agrees, as far as the session is held to it.

use super::Shared;
use super::session::Refusal;
use crate::view::CardView;
use raven_engine::CategorySet;
use raven_protocol::{GoodbyeReason, ViewId};

/// The kinds of jobs that a view did not offer; none where none was shown.
///
/// # Errors
/// [`GoodbyeReason::StaleView`] where it shows something else than holds now.
pub async fn hidden(shared: &Shared, view: Option<ViewId>) -> Result<CategorySet, Refusal> {
    let Some(view) = view else { return Ok(CategorySet::EMPTY) };
    let document = shared.store.card_view(view).await.map_err(|error| {
        tracing::error!(%error, "what a card showed was not read");
        let detail = "the session could not be recorded; come back later";
        Refusal::new(GoodbyeReason::Draining, detail)
    })?;
    let shown = document.as_deref().and_then(CardView::read).ok_or_else(unknown)?;
    if let Some(field) = shown.differs_from(&shared.config.card) {
        let detail = format!("receipt.view: {field} has changed since it was shown; ask again");
        return Err(Refusal::new(GoodbyeReason::StaleView, detail));
    }
    Ok(shown.hides())
}

/// A receipt for what no card is known to have shown lately.
pub fn unknown() -> Refusal {
    let detail = "receipt.view: not given to a card, or too long ago; ask again";
    Refusal::new(GoodbyeReason::StaleView, detail)
}
