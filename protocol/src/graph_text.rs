//! A graph as a message carries it: text that nobody has parsed yet.

use raven_graph::{Graph, GraphError, Limits, ValidGraph};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A graph's JSON form, syntactically JSON and otherwise unread. Its bytes are
/// counted before anything is built from them, so a peer cannot have a header
/// of some megabytes unfold into nodes that no limit has looked at.
#[derive(Clone, Debug)]
pub struct GraphText(Box<RawValue>);

impl GraphText {
    /// The text of a graph that was checked here.
    pub fn of(graph: &ValidGraph) -> Self {
        GraphText::unchecked(graph.graph())
    }

    /// The text of any graph, valid or not.
    pub fn unchecked(graph: &Graph) -> Self {
        // Keys are strings, the one thing that this serializer could refuse.
        GraphText(serde_json::value::to_raw_value(graph).expect("a graph has a JSON form"))
    }

    pub(crate) fn from_raw(text: &RawValue) -> Self {
        GraphText(text.to_owned())
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Reads and checks the graph.
    ///
    /// # Errors
    /// What [`ValidGraph::from_json`] refuses.
    pub fn validate(&self, limits: &Limits) -> Result<ValidGraph, GraphError> {
        ValidGraph::from_json(self.as_str().as_bytes(), limits)
    }
}

impl PartialEq for GraphText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Serialize for GraphText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
