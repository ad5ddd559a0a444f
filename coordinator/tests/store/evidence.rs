//! Evidence of a proven lie: whose it is, and how long it is kept.

use crate::records::persist;
use crate::server::{Server, job, record};
use raven_coordinator::store::EvidenceRecord;
use raven_engine::{Cause, ContributorId, JobPhase, JobState, Record};
use raven_protocol::{JobId, TaskId};
use serde_json::json;

#[test]
fn evidence_is_its_owners_and_goes_with_the_data_set() {
    let server = Server::start();
    let dataset = server.small_dataset();
    let answer = server.post("/v1/jobs", &job(&dataset));
    let id: JobId = answer.json()["id"].as_str().expect("an id").parse().expect("an id");
    let folder = server.app.settings.evidence_folder.clone();
    std::fs::create_dir_all(&folder).expect("a folder");
    let evidence = EvidenceRecord {
        id: "0123".into(),
        task: TaskId { job: id, round: 3, stage: 0, part: 1 },
        contributor: ContributorId([7; 32]),
        finding: "the claim is wrong".into(),
    };
    let file = folder.join("0123.evidence");
    std::fs::write(&file, b"rows").expect("written");
    std::fs::write(folder.join("other.evidence"), b"not in the store").expect("written");
    server.runtime.block_on(server.app.store.add_evidence(&evidence)).expect("stored");
    let found = server.get(&format!("/v1/jobs/{id}/proof")).json()["evidence"].clone();
    assert_eq!((&found[0]["id"], &found[0]["finding"]), (&json!("0123"), &json!(evidence.finding)));
    assert_eq!(found[0]["task"], evidence.task.to_string());
    let path = |evidence: &str| format!("/v1/jobs/{id}/proof/{evidence}");
    assert_eq!(server.get(&path("0123")).text(), "rows");
    for unknown in ["other", "..%2Fraven.sqlite", "4567"] {
        server.get(&path(unknown)).problem(404);
    }
    let ended = JobState::Cancelled { cause: Cause::Owner };
    persist(&server, &Record { phase: JobPhase::Cancelled, state: ended, ..record(id, 0) });
    assert_eq!(server.send("DELETE", &format!("/v1/datasets/{dataset}"), &[], b"").status, 204);
    assert!(!file.exists(), "it holds rows of the data set");
    server.get(&path("0123")).problem(404);
    let found = server.get(&format!("/v1/jobs/{id}/proof")).json();
    assert_eq!(found["evidence"].as_array().map(Vec::len), Some(1), "what was found stays");
}
