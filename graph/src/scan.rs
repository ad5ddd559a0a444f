//! A lexical look at JSON before it is parsed.
//!
//! A parser builds what it reads, so a document of a few megabytes can make
//! it hold a hundred times that. This pass counts list and object entries
//! in place, allocates nothing, and refuses what the limits would refuse
//! anyway. It does not judge syntax; the parser does.

use crate::error::GraphError;
use crate::limits::Limits;

/// A graph nests five deep: document, node list, node, attributes, extents.
const DEPTH_MAX: usize = 8;
/// No op has more than six fields.
const FIELDS_MAX: u64 = 16;
/// Paddings have four entries, whatever the rank limit.
const LIST_MIN: u32 = 4;

#[derive(Clone, Copy, Default)]
struct Frame<'a> {
    list: bool,
    /// Commas seen at this level.
    commas: u64,
    /// The key whose value is being read, raw, where this is an object.
    key: &'a [u8],
    limit: u64,
}

struct Scan<'a> {
    frames: [Frame<'a>; DEPTH_MAX],
    depth: usize,
    limits: &'a Limits,
}

/// Refuses documents that hold more entries than the limits allow.
///
/// # Errors
/// The same variants as validation: [`GraphError::Nodes`] and so on.
pub(crate) fn scan(json: &[u8], limits: &Limits) -> Result<(), GraphError> {
    let found = json.len() as u64;
    if found > limits.json_bytes_max {
        return Err(GraphError::DocumentBytes { limit: limits.json_bytes_max, found });
    }
    let mut scan = Scan { frames: [Frame::default(); DEPTH_MAX], depth: 0, limits };
    let mut last_string: &[u8] = &[];
    let mut at = 0;
    while at < json.len() {
        match json[at] {
            b'"' => {
                let end = string_end(json, at + 1);
                last_string = &json[at + 1..end];
                at = end;
            }
            b'{' => scan.open(false)?,
            b'[' => scan.open(true)?,
            b'}' | b']' => scan.depth = scan.depth.saturating_sub(1),
            b':' => {
                if let Some(frame) = scan.top() {
                    frame.key = last_string;
                }
            }
            b',' => scan.comma()?,
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The index of the closing quote, or the end of the document.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while at < json.len() && json[at] != b'"' {
        at += if json[at] == b'\\' { 2 } else { 1 };
    }
    at.min(json.len())
}

impl<'a> Scan<'a> {
    fn top(&mut self) -> Option<&mut Frame<'a>> {
        self.depth.checked_sub(1).map(|top| &mut self.frames[top])
    }

    fn open(&mut self, list: bool) -> Result<(), GraphError> {
        if self.depth == DEPTH_MAX {
            return Err(GraphError::Json { reason: format!("nested deeper than {DEPTH_MAX}") });
        }
        let limit = if list { self.list_limit() } else { FIELDS_MAX };
        self.frames[self.depth] = Frame { list, commas: 0, key: &[], limit };
        self.depth += 1;
        Ok(())
    }

    /// Entries that the list about to open may have.
    fn list_limit(&self) -> u64 {
        let limit = match (self.depth, self.frames[0].key, self.frames[2].key) {
            (1, b"nodes", _) => self.limits.nodes_max,
            (1, b"outputs", _) => self.limits.outputs_max,
            (3, b"nodes", b"inputs") => self.limits.operands_max,
            _ => self.limits.rank_max.max(LIST_MIN),
        };
        limit.into()
    }

    fn comma(&mut self) -> Result<(), GraphError> {
        let Some(frame) = self.top() else { return Ok(()) };
        frame.commas += 1;
        let frame = *frame;
        if frame.commas < frame.limit { Ok(()) } else { Err(self.refusal(frame)) }
    }

    /// The error for a level that has one entry more than its limit.
    fn refusal(&self, frame: Frame<'_>) -> GraphError {
        let found = frame.commas + 1;
        let node = u32::try_from(self.frames[1].commas).unwrap_or(u32::MAX);
        match (frame.list, self.depth, self.frames[0].key, self.frames[2].key) {
            (false, ..) => GraphError::Json { reason: format!("more than {FIELDS_MAX} fields") },
            (true, 2, b"nodes", _) => GraphError::Nodes { limit: self.limits.nodes_max, found },
            (true, 2, b"outputs", _) => {
                GraphError::Outputs { limit: self.limits.outputs_max, found }
            }
            (true, 4, b"nodes", b"inputs") => {
                GraphError::Operands { node, limit: self.limits.operands_max, found }
            }
            (true, _, b"nodes", _) => {
                GraphError::Rank { node, limit: self.limits.rank_max.max(LIST_MIN), found }
            }
            _ => GraphError::Json { reason: "a list where none is expected".into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<(), GraphError> {
        let limits = Limits {
            nodes_max: 2,
            outputs_max: 2,
            rank_max: 4,
            operands_max: 3,
            ..Limits::default()
        };
        scan(json.as_bytes(), &limits)
    }

    #[test]
    fn counts_entries_per_list() {
        assert_eq!(check(r#"{"nodes":[{},{}],"outputs":[{},{}]}"#), Ok(()));
        assert_eq!(check(r#"{"nodes":[{},{},{}]}"#), Err(GraphError::Nodes { limit: 2, found: 3 }));
        assert_eq!(
            check(r#"{"outputs":[{},{},{}]}"#),
            Err(GraphError::Outputs { limit: 2, found: 3 })
        );
        assert_eq!(
            check(r#"{"nodes":[{"a":1},{"shape":[1,1,1,1,1]}]}"#),
            Err(GraphError::Rank { node: 1, limit: 4, found: 5 })
        );
        assert_eq!(
            check(r#"{"nodes":[{"shape":[1,1,1,1],"inputs":[0,0,0,0]}]}"#),
            Err(GraphError::Operands { node: 0, limit: 3, found: 4 })
        );
        assert!(matches!(check("[[[[[[[[["), Err(GraphError::Json { .. })));
    }

    #[test]
    fn text_inside_strings_does_not_count() {
        assert_eq!(check(r#"{"nodes":[{"name":"[,,,,\",,,,"}]}"#), Ok(()));
        assert_eq!(check(r#"{"nodes":["unterminated \"#), Ok(()));
    }
}
