//! Messages and specs: what is accepted, what is refused, and that the page for
//! people names everything that the types know.

use raven_graph::GraphId;
use raven_protocol::limits::REFUSES_MAX;
use raven_protocol::message::{DeviceClass, RefuseReason};
use raven_protocol::{
    Binding, BlobId, Earnings, Encoding, FRAME_VERSION, FrameLimits, FromContributor,
    GoodbyeReason, GraphText, JobCategory, JobId, Keeps, LeaseId, LeaseOutcome, MessageError,
    Numerics, OutputSpec, PROTOCOL_VERSION, Program, Receipt, ReduceRule, ResultDigest,
    ResultOutcome, Seed, SessionId, ShardRef, SpecError, TaskId, TaskMessage, TaskSpec,
    ToContributor, ViewId,
};

const PAGE: &str = include_str!("../PROTOCOL.md");

fn spec(program: Program) -> TaskSpec {
    TaskSpec {
        program,
        seed: Seed(7),
        bindings: vec![
            Binding::Blob { input: "w".into(), blob: BlobId([1; 32]), tensor: "w".into() },
            Binding::Attached { input: "a".into(), tensor: "a".into() },
            Binding::PerRun { input: "p".into(), tensor: "p".into() },
            Binding::Rows { input: "x".into(), column: "x".into(), rows: "rows".into() },
            Binding::RowMask { input: "m".into(), rows: "rows".into() },
        ],
        shards: vec![ShardRef { blob: BlobId([2; 32]), first_row: 0, rows: 10, bytes: 100 }],
        outputs: vec![OutputSpec {
            name: "loss".into(),
            encoding: Encoding::Raw,
            reduce: ReduceRule::Sum,
        }],
        numerics: Numerics::Strict,
    }
}

fn map(start: u32, count: u32) -> Program {
    Program::Map { graph: GraphId([3; 32]), start, count }
}

fn outgoing() -> Vec<ToContributor> {
    let lease = LeaseId(5);
    let task = TaskMessage {
        lease,
        task: TaskId { job: JobId(1), round: 2, stage: 0, part: 4 },
        lease_ms: 1000,
        flops: 10,
        spec: spec(map(4, 4)),
    };
    let graph: raven_graph::Graph =
        serde_json::from_str(r#"{"version":1,"nodes":[],"outputs":[]}"#).expect("graph");
    vec![
        ToContributor::Welcome {
            session: SessionId(1),
            nonce: "n".into(),
            consent_text_version: "1".into(),
            consent_ms_max: 1,
            now_ms: 1,
        },
        ToContributor::Ready { grant: "g".into() },
        ToContributor::Graph { id: GraphId([3; 32]), graph: GraphText::unchecked(&graph) },
        ToContributor::Blob { id: BlobId([1; 32]) },
        ToContributor::About { requester: "Amber Heron".into(), category: JobCategory::Vision },
        ToContributor::Task(Box::new(task)),
        ToContributor::Project { lease, key: Seed(1 << 63), probes: 32 },
        ToContributor::Reveal { lease },
        ToContributor::Cancel { lease },
        ToContributor::Drop { blobs: vec![BlobId([1; 32])], graphs: vec![] },
        ToContributor::Outcomes {
            results: ResultOutcome::ALL.map(|outcome| LeaseOutcome { lease, outcome }).into(),
        },
        ToContributor::Goodbye {
            reason: GoodbyeReason::Draining,
            detail: "later".into(),
            retry_after_ms: Some(5000),
        },
        ToContributor::Goodbye {
            reason: GoodbyeReason::Incompatible,
            detail: "never".into(),
            retry_after_ms: None,
        },
    ]
}

#[test]
fn messages_round_trip_and_the_page_names_each() {
    for message in outgoing() {
        let text = serde_json::to_string(&message).expect("serializes");
        assert_eq!(ToContributor::from_header(&text).as_ref(), Ok(&message), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).expect("json");
        for (key, _) in value.as_object().expect("object") {
            assert!(key == "type" || PAGE.contains(&format!("`{key}`")), "page lacks {key}");
        }
        let kind = value["type"].as_str().expect("type");
        assert!(PAGE.contains(&format!("| `{kind}` |")), "page lacks {kind}");
    }
    let incoming = [
        r#"{"type":"commit","lease":"lease_00000000000000000000000000000005","digest":"0000000000000000000000000000000000000000000000000000000000000000","elapsed_ms":3,"backend":"gpu"}"#,
        r#"{"type":"projected","lease":"lease_00000000000000000000000000000005","tensors":[]}"#,
        r#"{"type":"result","lease":"lease_00000000000000000000000000000005","tensors":[]}"#,
        r#"{"type":"refuse","lease":"lease_00000000000000000000000000000005","reason":"too_large"}"#,
        r#"{"type":"pace","share":0.5,"workers":2}"#,
        r#"{"type":"pace","share":0.5,"workers":2,"receipt":"{}","signature":""}"#,
        r#"{"type":"pace","share":0.5,"workers":2,"refuses":["finance","other"]}"#,
        r#"{"type":"pause"}"#,
        r#"{"type":"resume"}"#,
        r#"{"type":"goodbye","reason":"stopped"}"#,
        r#"{"type":"consent","receipt":"{}","signature":""}"#,
    ];
    for text in incoming {
        let message = FromContributor::from_header(text).expect(text);
        let again = serde_json::to_string(&message).expect("serializes");
        assert_eq!(FromContributor::from_header(&again), Ok(message));
    }
}

#[test]
fn the_page_states_codes_limits_and_reasons() {
    for (reason, code) in GoodbyeReason::ALL.into_iter().zip(4000..) {
        let name = serde_json::to_value(reason).expect("name");
        assert_eq!((name.as_str(), reason.close_code()), (Some(reason.as_str()), code));
        let row = format!("| `{}` | {code} |", reason.as_str());
        assert!(PAGE.contains(&row), "page lacks {row}");
    }
    for outcome in ResultOutcome::ALL {
        let name = serde_json::to_value(outcome).expect("name");
        assert_eq!(name.as_str(), Some(outcome.as_str()));
        assert!(PAGE.contains(&format!("| `{}` |", outcome.as_str())), "page lacks {outcome:?}");
    }
    for limits in [FrameLimits::TO_CONTRIBUTOR, FrameLimits::TO_COORDINATOR] {
        assert!(PAGE.contains(&limits.header_bytes_max.to_string()));
        assert!(PAGE.contains(&limits.body_bytes_max.to_string()));
        assert!(PAGE.contains(&raven_protocol::limits::MESSAGE_BYTES_MAX.to_string()));
    }
    use RefuseReason::*;
    for reason in [TooLarge, Missing, Invalid, RefuseReason::Stopping, Failed] {
        let name = serde_json::to_value(reason).expect("name");
        assert!(PAGE.contains(name.as_str().expect("text")));
    }
    assert_eq!(serde_json::to_value(DeviceClass::Phone).expect("name"), "phone");
}

#[test]
fn out_of_range_fields_are_named() {
    let refuse = |text: &str| FromContributor::from_header(text).expect_err("refused");
    assert_eq!(
        refuse(r#"{"type":"pace","share":1.5,"workers":1}"#),
        MessageError::ShareOutOfRange { field: "share" }
    );
    assert_eq!(
        refuse(r#"{"type":"pace","share":0.5,"workers":0}"#),
        MessageError::WorkersOutOfRange { found: 0 }
    );
    let seven = ["other"; 7].map(|kind| format!("{kind:?}")).join(",");
    assert_eq!(
        refuse(&format!(r#"{{"type":"pace","share":0.5,"workers":1,"refuses":[{seven}]}}"#)),
        MessageError::RefusesTooMany { field: "refuses", found: 7 }
    );
    assert!(PAGE.contains(&format!("{REFUSES_MAX} at most")));
    let receipt = format!(
        r#"{{"text_version":"1","share":0.5,"refuses":[{seven}],"time_ms":1,"nonce":"0","session_key":"0"}}"#
    );
    assert_eq!(
        Receipt::from_text(&receipt),
        Err(MessageError::RefusesTooMany { field: "receipt.refuses", found: 7 })
    );
    let signature = "f".repeat(129);
    assert_eq!(
        refuse(&format!(
            r#"{{"type":"pace","share":0.5,"workers":1,"receipt":"","signature":"{signature}"}}"#
        )),
        MessageError::TextTooLong { field: "signature", found: 129, limit: 128 }
    );
    let long = format!(r#"{{"type":"pause","detail":"{}"}}"#, "x".repeat(600));
    assert_eq!(
        refuse(&long),
        MessageError::TextTooLong { field: "detail", found: 600, limit: 512 }
    );
    assert!(matches!(refuse(r#"{"type":"steal"}"#), MessageError::Malformed { .. }));
    let about = |requester: &str, category: &str| {
        let text =
            format!(r#"{{"type":"about","requester":"{requester}","category":"{category}"}}"#);
        ToContributor::from_header(&text)
    };
    assert_eq!(
        about(&"x".repeat(41), "vision"),
        Err(MessageError::TextTooLong { field: "requester", found: 41, limit: 40 })
    );
    for category in ["vision", "language", "tabular", "science", "finance", "other"] {
        assert!(about("Amber Heron", category).is_ok(), "{category}");
        assert!(PAGE.contains(&format!("`{category}`")), "page lacks {category}");
    }
    assert!(matches!(about("Amber Heron", "espionage"), Err(MessageError::Malformed { .. })));
    for probes in [0, 65] {
        let text = format!(
            r#"{{"type":"project","lease":"lease_00000000000000000000000000000005","key":"0x0000000000000001","probes":{probes}}}"#
        );
        let refused = ToContributor::from_header(&text);
        assert_eq!(refused, Err(MessageError::ProbesOutOfRange { found: probes }));
    }
}

#[test]
fn specs_are_checked_without_their_graph() {
    assert_eq!(spec(map(4, 4)).check(), Ok(()));
    assert_eq!(spec(map(4, 3)).check(), Ok(()), "the truncated end of a batch");
    assert_eq!(spec(map(2, 4)).check(), Err(SpecError::Misaligned { start: 2, count: 4 }));
    assert_eq!(spec(map(0, 0)).check(), Err(SpecError::Zero { field: "program.count" }));
    assert!(matches!(spec(map(0, 1 << 20)).check(), Err(SpecError::Limit { .. })));
    let mut twice = spec(map(0, 1));
    twice.bindings.push(twice.bindings[0].clone());
    assert_eq!(twice.check(), Err(SpecError::BoundTwice { input: "w".into() }));
    let mut overlap = spec(map(0, 1));
    overlap.shards.push(ShardRef { first_row: 9, ..overlap.shards[0] });
    assert_eq!(overlap.check(), Err(SpecError::ShardOrder { index: 1 }));
}

#[test]
fn digests_depend_on_every_field() {
    use raven_graph::{DType, Shape};
    use raven_protocol::{TensorView, result_digest};
    let task = TaskId { job: JobId(1), round: 2, stage: 0, part: 4 };
    let shape = Shape::from([2]);
    let other_shape = Shape::from([2, 1]);
    let view = TensorView { name: "g", dtype: DType::F32, shape: &shape, data: &[0; 8] };
    let digest = |task, view| result_digest(task, [(Encoding::Raw, view)]);
    let base = digest(task, view);
    let variants: Vec<ResultDigest> = vec![
        digest(TaskId { round: 3, ..task }, view),
        digest(task, TensorView { name: "h", ..view }),
        digest(task, TensorView { dtype: DType::I32, ..view }),
        digest(task, TensorView { shape: &other_shape, ..view }),
        digest(task, TensorView { data: &[0, 0, 0, 0, 0, 0, 0, 1], ..view }),
    ];
    for (index, variant) in variants.iter().enumerate() {
        assert_ne!(&base, variant, "variant {index}");
        assert!(!variants[..index].contains(variant));
    }
}

#[test]
fn what_a_hello_and_a_receipt_leave_out_is_what_it_says_on_the_page() {
    let hello = r#"{"type":"hello","protocol":4,"numeric":{"class":"cpu","kernel":"0000000000000000000000000000000000000000000000000000000000000000"},"device":{"class":"phone","cores":1,"memory_bytes":1,"flops_per_s":1},"share":0.5,"workers":1,"session_key":"00"}"#;
    let FromContributor::Hello(short) = FromContributor::from_header(hello).expect("a hello")
    else {
        unreachable!("it is a hello");
    };
    assert_eq!((short.keeps, short.earnings), (Keeps::Key, Earnings::Mine));
    assert_eq!(short.protocol, PROTOCOL_VERSION);
    let whole =
        hello.replace(r#""session_key""#, r#""keeps":"visit","earnings":"site","session_key""#);
    let FromContributor::Hello(whole) = FromContributor::from_header(&whole).expect("a hello")
    else {
        unreachable!("it is a hello");
    };
    assert_eq!((whole.keeps, whole.earnings), (Keeps::Visit, Earnings::Site));
    assert!(FromContributor::from_header(&hello.replace("phone", "toaster")).is_err());
    let receipt = r#"{"text_version":"1","share":0.5,"time_ms":1,"nonce":"0","session_key":"0"}"#;
    let short = Receipt::from_text(receipt).expect("a receipt");
    assert!(short.cpu && !short.gpu && short.keeps == Keeps::Key && short.refuses.is_empty());
    assert_eq!(serde_json::to_string(&short).expect("serializes"), receipt);
    assert_eq!(short.view, None);
    let viewed = receipt.replace(r#""share""#, &format!(r#""view":"{}","share""#, "0a".repeat(32)));
    let whole = Receipt::from_text(&viewed).expect("a receipt");
    assert_eq!(whole.view, Some(ViewId([10; 32])));
    assert_eq!(serde_json::to_string(&whole).expect("serializes"), viewed);
    for view in ["", "0a", &"0A".repeat(32), &"0a".repeat(33)] {
        let odd = receipt.replace(r#""share""#, &format!(r#""view":"{view}","share""#));
        assert!(Receipt::from_text(&odd).is_err(), "{view:?} names no view");
    }
    let off = receipt.replace(r#""nonce""#, r#""cpu":false,"gpu":true,"nonce""#);
    assert!(!Receipt::from_text(&off).expect("a receipt").cpu);
    let undated = receipt.replace(r#""time_ms":1,"#, "");
    assert!(Receipt::from_text(&undated).is_err());
    assert!(PAGE.starts_with(&format!("# The contributor protocol, version {PROTOCOL_VERSION}")));
    assert!(PAGE.contains(&format!("frame version, u16 little-endian: `{FRAME_VERSION}`")));
}
