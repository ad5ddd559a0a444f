//! `coordinator verify-receipt`: a receipt of the API, shown to the program as whoever holds it does.

use crate::server::Server;
use crate::support::process::program;
use raven_coordinator::store::{Book, requester};
use raven_engine::ledger::{Account, Action, Entry, EntryId, Reason, Transfer};
use raven_engine::money::NanoUsd;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What the program says of a file: whether it believes it, and its words.
fn says(file: &Path, key: Option<&str>) -> (bool, String) {
    let mut command = program();
    command.arg("verify-receipt").arg(file);
    if let Some(key) = key {
        command.args(["--key", key]);
    }
    let output = command.output().expect("runs");
    let said = if output.status.success() { output.stdout } else { output.stderr };
    assert_ne!(output.status.code(), None, "it ends by itself");
    (output.status.success(), String::from_utf8(said).expect("text"))
}

/// A receipt, whose key it is, and a folder for files.
struct Held {
    text: String,
    key: String,
    folder: tempfile::TempDir,
}

impl Held {
    fn get() -> Self {
        let server = Server::start();
        let text = server.get("/v1/account/receipts/1").text();
        let key = server.get("/v1/certificate-key").json()["public_key"].clone();
        let key = key.as_str().expect("a key").to_owned();
        Held { text, key, folder: tempfile::tempdir().expect("a folder") }
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let file = self.folder.path().join("receipt.json");
        std::fs::write(&file, bytes).expect("written");
        file
    }

    /// The program does not believe `bytes`, and says `why`.
    fn refuses(&self, bytes: &[u8], why: &str) {
        for key in [None, Some(self.key.as_str())] {
            let (believed, said) = says(&self.write(bytes), key);
            assert!(!believed && said.contains(why), "{why}: {said}");
            assert!(!said.contains("panicked"), "{said}");
        }
    }
}

#[test]
fn a_genuine_receipt_is_told_with_its_amount_accounts_and_times() {
    let held = Held::get();
    let file = held.write(held.text.as_bytes());
    let (believed, said) = says(&file, Some(&held.key));
    assert!(believed, "{said}");
    let document: Value = serde_json::from_str(&held.text).expect("JSON");
    let receipt = &document["receipt"];
    let part = |name: &str| receipt[name].as_str().expect("text").to_owned();
    assert!(said.starts_with("1000.000000000 USD of operator to requester:"), "{said}");
    for part in [part("credit"), part("reason"), part("hash"), held.key.clone()] {
        assert!(said.contains(&part), "{part}: {said}");
    }
    assert!(said.contains("entered at 20") && said.contains(" at 20"), "{said}");
    assert!(!said.contains("--key"), "{said}");
    assert!(receipt["signed_ms"].as_i64() >= receipt["at_ms"].as_i64());
    // Whoever says nothing of the key is told that the file alone proves little.
    let (believed, said) = says(&file, None);
    assert!(believed && said.contains("--key says whose key that must be"), "{said}");
}

#[test]
fn every_field_that_was_changed_is_found_out() {
    let held = Held::get();
    let document: Value = serde_json::from_str(&held.text).expect("JSON");
    let changes = [
        ("book", json!("live")),
        ("number", json!(2)),
        ("id", json!("00".repeat(32))),
        ("at_ms", json!(1)),
        ("action", json!("hold")),
        ("debit", json!("external")),
        ("credit", json!("requester:0000000000000063")),
        ("nano_usd", json!(2_000_000_000_000_i64)),
        ("reason", json!("deposit")),
        ("expires_ms", json!(5)),
        ("before", json!("11".repeat(32))),
        ("hash", json!("11".repeat(32))),
        ("signed_ms", json!(9_000_000_000_000_i64)),
    ];
    let fields = document["receipt"].as_object().expect("an object").keys();
    let mut changed: Vec<&str> = changes.iter().map(|(field, _)| *field).collect();
    changed.sort_unstable();
    let mut known: Vec<&String> = fields.collect();
    known.sort();
    assert_eq!(changed, known, "each field has its line");
    for (field, value) in changes {
        let receipt = held.text.clone();
        let old = document["receipt"][field].to_string();
        let new =
            receipt.replacen(&format!("\"{field}\":{old}"), &format!("\"{field}\":{value}"), 1);
        assert_ne!(new, receipt, "{field}");
        held.refuses(new.as_bytes(), "signature: the key did not sign this receipt");
    }
    // Fields that are left out, said twice, or added; another order of the same words.
    let signed = "signature: the key did not sign this receipt";
    held.refuses(held.text.replacen("\"number\":1,", "", 1).as_bytes(), signed);
    held.refuses(
        held.text.replacen("\"number\":1,", "\"number\":1,\"number\":1,", 1).as_bytes(),
        signed,
    );
    held.refuses(held.text.replacen("{\"book\"", "{ \"book\"", 1).as_bytes(), signed);
    held.refuses(
        held.text.replacen("{\"receipt\"", "{\"more\":1,\"receipt\"", 1).as_bytes(),
        "unknown field",
    );
}

#[test]
fn another_key_and_another_signature_are_refused() {
    let held = Held::get();
    let other = Held::get();
    assert_ne!(held.key, other.key);
    let (believed, said) = says(&held.write(held.text.as_bytes()), Some(&other.key));
    assert!(!believed && said.contains("another coordinator's"), "{said}");
    // A file that says that the other one signed it, and one with the other's signature.
    let renamed = held.text.replace(&held.key, &other.key);
    let (believed, said) = says(&held.write(renamed.as_bytes()), None);
    assert!(!believed && said.contains("did not sign"), "{said}");
    let of = |text: &str| {
        let document: Value = serde_json::from_str(text).expect("JSON");
        document["signature"].as_str().expect("text").to_owned()
    };
    let swapped = held.text.replace(&of(&held.text), &of(&other.text));
    held.refuses(swapped.as_bytes(), "did not sign");
    held.refuses(held.text.replace(&of(&held.text), "00").as_bytes(), "signature: must be 128");
    let (believed, said) = says(&held.write(held.text.as_bytes()), Some("00"));
    assert!(!believed && said.contains("64 lower-case hex digits"), "{said}");
}

#[test]
fn what_is_no_receipt_is_told_why() {
    let held = Held::get();
    held.refuses(b"", "cannot be read");
    held.refuses(b"{}", "cannot be read");
    held.refuses(&held.text.as_bytes()[..held.text.len() - 1], "cannot be read");
    held.refuses(&[0xff, 0xfe, 0], "receipt.json");
    held.refuses(&vec![b' '; (16 << 10) + 1], "at most 16384 are read");
    let (believed, said) = says(&held.folder.path().join("missing.json"), None);
    assert!(!believed && said.contains("missing.json"), "{said}");
    let (believed, said) = says(held.folder.path(), None);
    assert!(!believed, "a folder: {said}");
}

#[test]
fn whoever_shows_the_receipt_of_a_void_hold_is_told_that_it_is_not_paid() {
    let server = Server::start();
    let transfer = Transfer {
        debit: Account::Operator,
        credit: requester(server.owner),
        amount: NanoUsd(500),
        reason: Reason::Correction,
    };
    let enter = |name: &str, action| {
        let id = EntryId::of("test", &[name.as_bytes()]);
        let entries = [Entry { id, at: 1, action }];
        server.runtime.block_on(server.app.store.enter(Book::Test, &entries)).expect("entered");
        id
    };
    let folder = tempfile::tempdir().expect("a folder");
    let shown = |number: i64| {
        let file = folder.path().join("receipt.json");
        let text = server.get(&format!("/v1/account/receipts/{number}")).text();
        std::fs::write(&file, text).expect("written");
        let output = program().arg("verify-receipt").arg(&file).output().expect("runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let held = Action::Hold { transfer, expires: None };
    let (first, second) = (enter("first", held), enter("second", held));
    let (code, said) = shown(2);
    assert!(code == Some(3) && said.contains("not paid: held when this was signed"), "{said}");
    enter("void", Action::VoidHold { hold: first });
    enter("post", Action::PostHold { hold: second });
    let (code, said) = shown(2);
    assert!(code == Some(3) && said.contains("NOT PAID: the hold was voided by entry 4"), "{said}");
    let (code, said) = shown(3);
    assert!(code == Some(0) && said.contains("paid: the hold was posted by entry 5"), "{said}");
}
