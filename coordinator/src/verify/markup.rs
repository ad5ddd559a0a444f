//! The script elements of a page, as a browser would run them.

/// Elements whose content is text to a browser that runs scripts. A tag in one
/// of them, or in a comment, does nothing.
const RAW: [&str; 8] =
    ["script", "style", "textarea", "title", "noscript", "iframe", "xmp", "template"];

/// The `src` of every script element, in order. Reads any text, and each part of it once.
pub fn script_sources(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = after(comment, "-->");
            continue;
        }
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            continue;
        }
        let is_end = |c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>');
        let length = rest.find(is_end).unwrap_or(rest.len());
        let name = rest[..length].to_ascii_lowercase();
        let (attributes, attributes_end) = script_attributes(&rest[length..]);
        rest = attributes_end;
        if name == "script" && attributes.is_run() {
            found.extend(attributes.source);
        }
        if RAW.contains(&name.as_str()) {
            rest = after_end_tag(rest, &name);
        }
    }
    found
}

/// What follows the first `end`; nothing where there is none.
fn after<'a>(text: &'a str, end: &str) -> &'a str {
    text.find(end).map_or("", |at| &text[at + end.len()..])
}

/// What follows `</name`, in any case.
fn after_end_tag<'a>(text: &'a str, name: &str) -> &'a str {
    let mut rest = text;
    while let Some(at) = rest.find("</") {
        rest = &rest[at + 2..];
        if rest.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)) {
            return &rest[name.len()..];
        }
    }
    ""
}

/// Of a start tag's attributes, those that say what a script is.
#[derive(Default)]
struct Attributes {
    source: Option<String>,
    kind: Option<String>,
}

impl Attributes {
    /// Whether a browser runs it. Consent managers block a script by giving it
    /// another type until the visitor agrees.
    fn is_run(&self) -> bool {
        let kind = self.kind.as_deref().unwrap_or("").trim().to_ascii_lowercase();
        let scripts = ["", "module", "text/javascript", "application/javascript"];
        scripts.contains(&kind.as_str())
    }
}

/// Reads attributes up to the end of a start tag, the first of each name, and
/// what follows the tag.
fn script_attributes(text: &str) -> (Attributes, &str) {
    let mut found = Attributes::default();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if rest.is_empty() {
            // A tag that the page's end cuts off is no element.
            return (Attributes::default(), rest);
        }
        if let Some(next) = rest.strip_prefix('>') {
            return (found, next);
        }
        let (name, value, next) = attribute(rest);
        if found.source.is_none() && name.eq_ignore_ascii_case("src") {
            found.source = value.map(decode);
        }
        if found.kind.is_none() && name.eq_ignore_ascii_case("type") {
            found.kind = Some(value.unwrap_or("").to_owned());
        }
        rest = next;
    }
}

/// One attribute: its name, its value, and what follows. Takes at least one character.
fn attribute(text: &str) -> (&str, Option<&str>, &str) {
    let is_end = |c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>' | '=');
    // An equals sign at the start belongs to the name, as it does for browsers.
    let first = text.chars().next().map_or(0, char::len_utf8);
    let end = text[first..].find(is_end).map_or(text.len(), |at| first + at);
    let (name, rest) = text.split_at(end);
    let Some(value) = rest.trim_start().strip_prefix('=').map(str::trim_start) else {
        return (name, None, rest);
    };
    for quote in ['"', '\''] {
        if let Some(inside) = value.strip_prefix(quote) {
            let (value, rest) = inside.split_once(quote).unwrap_or((inside, ""));
            return (name, Some(value), rest);
        }
    }
    let end = value.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(value.len());
    (name, Some(&value[..end]), &value[end..])
}

/// Resolves the references that stand in addresses.
fn decode(value: &str) -> String {
    let mut text = value.trim().to_owned();
    for (reference, meaning) in
        [("&#38;", "&"), ("&#x26;", "&"), ("&#61;", "="), ("&#x3d;", "="), ("&#x3D;", "=")]
    {
        text = text.replace(reference, meaning);
    }
    text.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_browsers_read_them() {
        for (page, sources) in [
            ("<script src=a></script>", vec!["a"]),
            (
                "<SCRIPT\n ASYNC Src = 'a?b&amp;c' data-x=\"<script src=no>\"></SCRIPT>",
                vec!["a?b&c"],
            ),
            ("<script src=\"a\" src=\"b\"/></script><script src=c></script >", vec!["a", "c"]),
            (
                "<script>document.write('<script src=x><\\/script>')</script><script src=y>",
                vec!["y"],
            ),
            ("<!-- <script src=x></script> --><script src=y></script>", vec!["y"]),
            (
                "<noscript><script src=x></script></noscript><textarea><script src=x></textarea>",
                vec![],
            ),
            ("<title></titl<script src=x></title><p title='<script src=x>'>", vec![]),
            ("<scripts src=x><script-x src=x><script><script src=x>", vec![]),
            ("a < b <> </p> <script src=y><", vec!["y"]),
            ("<script src=x", vec![]),
            ("<script src='x", vec![]),
            ("<script =src=x src=y>", vec!["y"]),
            ("<script src>", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(script_sources(page), sources, "{page}");
        }
    }

    #[test]
    fn a_long_page_of_nonsense_is_read_in_time() {
        for part in ["<", "<!--", "<script", "<script src", "</", "<a =", "<title>", "é<"] {
            let page = part.repeat((1 << 20) / part.len());
            let started = std::time::Instant::now();
            script_sources(&page);
            assert!(started.elapsed().as_secs() < 2, "{part}");
        }
    }
}
