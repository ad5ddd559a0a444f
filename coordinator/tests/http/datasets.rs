//! Uploads of every format, and uploads that mean harm.

use crate::server::Server;
use crate::server::files::*;
use raven_coordinator::dataset::UploadLimits;
use raven_coordinator::store::DatasetId;
use serde_json::{Value, json};

fn classes(format: &str) -> Value {
    json!({"name": "d", "format": format, "target": "classes", "classes": 4})
}

fn i32s(labels: &[u8]) -> Vec<u8> {
    labels.iter().flat_map(|&label| i32::from(label).to_le_bytes()).collect()
}

#[test]
fn idx_keeps_bytes_and_splits_as_the_files_do() {
    let server = Server::start();
    let answer = server.upload(&classes("idx"), &small_idx());
    assert_eq!(answer.status, 201, "{}", answer.text());
    let facts = answer.json();
    assert_eq!(facts["train_rows"], TRAIN);
    assert_eq!(facts["test_rows"], TEST);
    assert_eq!(facts["features"], json!({"dtype": "u8", "shape": [SIDE, SIDE]}));
    assert_eq!(facts["target"], json!({"kind": "classes", "classes": 4}));
    let id = facts["id"].as_str().expect("an id");
    assert_eq!(server.rows(id, false), (pixels(0, TRAIN), i32s(&labels(0, TRAIN)), 100));
    assert_eq!(server.rows(id, true), (pixels(TRAIN, TEST), i32s(&labels(TRAIN, TEST)), 20));
    assert_eq!(server.get(&format!("/v1/datasets/{id}")).json(), facts);
    assert_eq!(server.get("/v1/datasets").json(), json!({"datasets": [facts]}));
}

#[test]
fn many_rows_become_shards_of_a_power_of_two() {
    let server = Server::start();
    let (count, side) = (3000u32, 28u32);
    let bytes: Vec<u8> = (0..count * side * side).map(|i| (i % 251) as u8).collect();
    let x = idx(8, &[count, side, side], &bytes);
    let y = idx(8, &[count], &labels(0, count as usize));
    let answer = server.upload(&classes("idx"), &[("train_x", gzip(&x)), ("train_y", y)]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id: DatasetId = answer.json()["id"].as_str().expect("an id").parse().expect("an id");
    let shards = server.runtime.block_on(server.app.store.shards(id, false)).expect("shards");
    let sizes: Vec<u32> = shards.iter().map(|shard| shard.rows).collect();
    // A fifth is held out.
    assert_eq!(sizes, [1024, 1024, 352]);
    let (x, _, train) = server.rows(&id.to_string(), false);
    let (held_out, _, test) = server.rows(&id.to_string(), true);
    assert_eq!((train, test), (2400, 600));
    assert_eq!([x, held_out].concat(), bytes);
}

#[test]
fn npy_and_npz_convert_numbers() {
    let server = Server::start();
    let x: Vec<u8> = (0..30).flat_map(|i| (f64::from(i) / 4.0).to_le_bytes()).collect();
    let y: Vec<u8> = (0..10i64).flat_map(|i| (i % 4).to_be_bytes()).collect();
    let (x, y) = (npy("<f8", "(10, 3)", &x), npy(">i8", "(10, 1)", &y));
    let npy_answer =
        server.upload(&classes("npy"), &[("train_x", x.clone()), ("train_y", y.clone())]);
    assert_eq!(npy_answer.status, 201, "{}", npy_answer.text());
    let archive = npz(&[("train_x", x), ("train_y", y)]);
    for table in [archive.clone(), gzip(&archive)] {
        let answer = server.upload(&classes("npz"), &[("table", table)]);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        let (x, y, count) = server.rows(&id, false);
        assert_eq!(count, 8);
        assert_eq!(x, f32s((0..24).map(|i| i as f32 / 4.0)));
        assert_eq!(y, i32s(&[0, 1, 2, 3, 0, 1, 2, 3]));
    }
}

#[test]
fn safetensors_and_values_of_any_width() {
    let server = Server::start();
    let header = json!({
        "__metadata__": {"a": "b"},
        "train_y": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]},
        "train_x": {"dtype": "I16", "shape": [4], "data_offsets": [32, 40]},
    });
    let mut data = f32s((0..8).map(|i| i as f32));
    data.extend((0..4i16).flat_map(|i| (-i).to_le_bytes()));
    let file = safetensors(&header.to_string(), &data);
    let spec = json!({"name": "v", "format": "safetensors", "target": "values",
                      "test_fraction": 0.25});
    let answer = server.upload(&spec, &[("table", file)]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let facts = answer.json();
    assert_eq!(facts["target"], json!({"kind": "values", "width": 2}));
    assert_eq!(facts["features"], json!({"dtype": "f32", "shape": [1]}));
    let (x, y, count) = server.rows(facts["id"].as_str().expect("an id"), false);
    assert_eq!((count, x), (3, f32s([0.0, -1.0, -2.0])));
    assert_eq!(y, f32s((0..6).map(|i| i as f32)));
}

#[test]
fn csv_with_and_without_names() {
    let server = Server::start();
    let named = "a,label,b,c,d\n1,0,2,3,4\n5,1,6,7,8\n-1.5,3.0,0,1e2,2\n9,2,9,9,9\n0,0,0,0,0\n";
    let mut spec = classes("csv");
    spec["target_column"] = json!("label");
    spec["sample_shape"] = json!([2, 2]);
    let answer = server.upload(&spec, &[("table", gzip(named.as_bytes()))]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let facts = answer.json();
    assert_eq!(facts["features"]["shape"], json!([2, 2]));
    let (x, y, count) = server.rows(facts["id"].as_str().expect("an id"), false);
    assert_eq!(count, 4);
    assert_eq!(x[..48], f32s([1., 2., 3., 4., 5., 6., 7., 8., -1.5, 0., 100., 2.]));
    assert_eq!(y, i32s(&[0, 1, 3, 2]));
    // Quotes around numbers and names say nothing.
    let quoted: String =
        named.lines().map(|line| format!("\"{}\"\r\n", line.replace(',', "\",\""))).collect();
    let answer = server.upload(&spec, &[("table", quoted.into_bytes())]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let again = server.rows(answer.json()["id"].as_str().expect("an id"), false);
    assert_eq!(again, (x, y, count));
    let quoted = "\"a\", \"b\",label\n\"1\", \"2\",0\n\"3\",4,\"1\"\n5,6,2\n";
    let answer = server.upload(&classes("csv"), &[("table", quoted.into())]);
    let (x, y, _) = server.rows(answer.json()["id"].as_str().expect("an id"), false);
    assert_eq!((x, y), (f32s([1.0, 2.0, 3.0, 4.0]), i32s(&[0, 1])));
    let plain = "1,2,0\n3,4,1\n5,6,2\n";
    let answer = server.upload(&classes("csv"), &[("table", plain.into())]);
    assert_eq!(answer.json()["train_rows"], 2, "{}", answer.text());
}

/// Spec and files of an upload, the field that is refused, and a part of the detail.
type Refused<'a> = (Value, Vec<(&'a str, Vec<u8>)>, &'a str, &'a str);

#[test]
fn broken_uploads_are_refused_by_field_and_leave_nothing() {
    let server = Server::start();
    let good = || (images(0, 10), idx(8, &[10], &labels(0, 10)));
    let pair = |x: Vec<u8>, y: Vec<u8>| vec![("train_x", x), ("train_y", y)];
    let table = |bytes: Vec<u8>| vec![("table", bytes)];
    let (x, y) = good();
    let mut bad_label = labels(0, 10);
    bad_label[7] = 4;
    let floats = |value: f32| npy("<f4", "(2, 1)", &f32s([1.0, value]));
    let two = npy("|u1", "(2,)", &[0, 1]);
    let packed = gzip(&x);
    let arrays =
        [("train_x", npy("|u1", "(9, 64)", &x[16..592])), ("train_y", npy("|u1", "(9,)", &[0; 9]))];
    let archive = npz(&arrays);
    // The directory's checksum of the first entry.
    let directory = archive.windows(4).position(|bytes| bytes == b"PK\x01\x02").expect("there");
    let mut rotten = archive.clone();
    rotten[directory + 16] ^= 1;
    let mut longer = x.clone();
    longer.push(0);
    let hostile_shape = idx(8, &[u32::MAX, u32::MAX, u32::MAX], &[]);
    let mut cases: Vec<Refused<'_>> = vec![
        (classes("idx"), pair(x[..x.len() - 1].to_vec(), y.clone()), "train_x", "640 are declared"),
        (classes("idx"), pair(x[..6].to_vec(), y.clone()), "train_x.header", "ends inside"),
        (classes("idx"), pair(longer, y.clone()), "train_x", "goes on after"),
        (classes("idx"), pair(b"\x89PNG....".to_vec(), y.clone()), "train_x.magic", "not zero"),
        (classes("idx"), pair(hostile_shape, y.clone()), "train_x.rows", "exceeds the limit"),
        (
            classes("idx"),
            pair(idx(8, &[1, 1 << 16, 1 << 16], &[]), y.clone()),
            "train_x.sample_elements",
            "exceeds the limit",
        ),
        (
            classes("idx"),
            pair(idx(8, &[0, 8], &[]), y.clone()),
            "train_x.shape",
            "none of them empty",
        ),
        (classes("idx"), pair(idx(8, &[1; 9], &[0]), y.clone()), "train_x.rank", "exceeds"),
        (classes("idx"), pair(idx(9, &[], &[]), y.clone()), "train_x.shape", "at least one axis"),
        (classes("idx"), pair(idx(0x0f, &[1], &[0]), y.clone()), "train_x.dtype", "0x0f"),
        (classes("idx"), pair(x.clone(), idx(8, &[10], &bad_label)), "train_y[7][0]", "row 7"),
        (classes("idx"), pair(x.clone(), idx(8, &[9], &labels(0, 9))), "train_y", "9 rows"),
        (classes("idx"), pair(x.clone(), idx(8, &[10, 2], &[0; 20])), "train_y.shape", "labels"),
        (classes("idx"), vec![("train_x", x.clone())], "train_y", "missing"),
        (classes("idx"), vec![("train_x", x.clone()), ("train_x", x.clone())], "train_x", "twice"),
        (classes("idx"), vec![("../x", x.clone())], "../x", "takes train_x"),
        (classes("npz"), pair(x.clone(), y.clone()), "train_x", "one file, table"),
        (
            classes("npy"),
            pair(npy("|O", "(2,)", b"cos\nsystem\n"), two.clone()),
            "train_x.dtype",
            "pickles",
        ),
        (
            classes("npy"),
            pair(npy("<f4", "(2, 99999999999)", &[]), two.clone()),
            "train_x.sample_elements",
            "exceeds",
        ),
        (classes("npy"), pair(floats(f32::NAN), two.clone()), "train_x[1][0]", "finite"),
        (classes("npy"), pair(floats(f32::INFINITY), two.clone()), "train_x[1][0]", "finite"),
        (
            classes("idx"),
            pair(packed[..packed.len() / 2].to_vec(), y.clone()),
            "train_x",
            "cannot be read",
        ),
        (classes("npz"), table(b"PK\x03\x04 not a zip".to_vec()), "table.archive", ""),
        (classes("npz"), table(npz(&[("x", vec![])])), "table.train_x", "no array"),
        (classes("npz"), table(rotten), "train_x", "checksum"),
        (
            classes("npz"),
            table(archive[..archive.len() - 9].to_vec()),
            "table.archive",
            "not a zip",
        ),
        (classes("npz"), table(archive[20..].to_vec()), "table.archive", "damaged"),
        (classes("safetensors"), table(safetensors("{\"train_x\": 1}", &[])), "table.train_x", ""),
        (
            classes("safetensors"),
            table(u64::MAX.to_le_bytes().to_vec()),
            "table.header_bytes",
            "exceeds",
        ),
        (classes("safetensors"), table(vec![1, 2]), "table.header", "ends inside"),
        (classes("csv"), table(b"1,2,0\n3,cat,1\n4,5,0\n".to_vec()), "table[1][1]", "\"cat\""),
        (classes("csv"), table(b"1,2,0\n3,4\n".to_vec()), "table[1]", "2 columns"),
        (classes("csv"), table(b"1,2,0\n3,4,9\n".to_vec()), "table[1][2]", "label in 0..4"),
        (classes("csv"), table(b"1,2,0.5\n3,4,1\n".to_vec()), "table[0][2]", "whole label"),
        (classes("csv"), table(b"a,b,c\n".to_vec()), "table.shape", "two rows"),
        (classes("csv"), table(Vec::new()), "table.shape", "at least one row"),
    ];
    let tensor = |offsets: [u64; 2]| {
        json!({"train_x": {"dtype": "U8", "shape": [4], "data_offsets": offsets},
               "train_y": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})
        .to_string()
    };
    for (offsets, field, detail) in [
        ([0, 5], "table.train_x", "leave 4 bytes"),
        ([3, 1], "table.train_x", "3..1"),
        ([0, 3], "train_x", "4 are declared"),
    ] {
        let file = safetensors(&tensor(offsets), &[0; 4]);
        cases.push((classes("safetensors"), table(file), field, detail));
    }
    for (spec, files, field, detail) in cases {
        let problem = server.upload(&spec, &files).problem(422);
        assert_eq!(problem["field"], field, "{problem}");
        let text = problem["detail"].as_str().expect("a detail");
        assert!(text.contains(detail), "{field}: {text:?} lacks {detail:?}");
    }
    assert_eq!(server.get("/v1/datasets").json(), json!({"datasets": []}));
    assert_eq!(server.blob_count(), 0, "a refused upload leaves no blobs");
    let uploads = std::fs::read_dir(server.folder.path().join("uploads")).expect("the folder");
    assert_eq!(uploads.count(), 0, "a refused upload leaves no files");
}

#[test]
fn a_cut_word_in_the_middle_of_a_table_is_named_by_row_and_column() {
    let server = Server::start();
    let mut table = "1.5,2,1\n".repeat(500);
    table += "1.5,two,1\n";
    let answer = server.upload(&classes("csv"), &[("table", table.into())]);
    let problem = answer.problem(422);
    assert_eq!(problem["field"], "table[500][1]", "{problem}");
}

#[test]
fn specs_are_checked_before_the_files() {
    let server = Server::start();
    let spec = |change: &dyn Fn(&mut Value)| {
        let mut spec = classes("idx");
        change(&mut spec);
        spec
    };
    let cases = [
        (spec(&|s| s["name"] = json!(" ")), "spec.name"),
        (spec(&|s| s["name"] = json!("x".repeat(101))), "spec.name"),
        (spec(&|s| s["format"] = json!("pickle")), "spec.format"),
        (spec(&|s| s["classes"] = json!(1)), "spec.classes"),
        (spec(&|s| s["classes"] = json!(null)), "spec.classes"),
        (spec(&|s| s["target"] = json!("values")), "spec.classes"),
        (spec(&|s| s["test_fraction"] = json!(1.0)), "spec.test_fraction"),
        (spec(&|s| s["scale"] = json!(1e300)), "spec.scale"),
        (spec(&|s| s["sample_shape"] = json!([64])), "spec.sample_shape"),
        (spec(&|s| s["colour"] = json!("red")), "spec.colour"),
    ];
    for (spec, field) in cases {
        let problem = server.upload(&spec, &small_idx()).problem(422);
        assert_eq!(problem["field"], field, "{problem}");
    }
    let no_spec = server.upload_parts(&[("train_x", images(0, 4))]);
    assert_eq!(no_spec.problem(422)["field"], "spec");
    let long_spec = server.upload_parts(&[("spec", vec![b' '; 70_000])]);
    assert_eq!(long_spec.problem(422)["limit"], 65_536);
    let not_json = server.upload_parts(&[("spec", b"{".to_vec())]);
    assert_eq!(not_json.problem(400)["field"], "spec");
    server.post_bytes("/v1/datasets", "text/plain", b"{}").problem(400);
    let no_uploads = server.post("/v1/datasets", &json!({}));
    assert!(no_uploads.problem(422)["detail"].as_str().expect("text").contains("spec"));
}

#[test]
fn bombs_and_floods_stop_at_their_limits() {
    let limits = UploadLimits {
        body_bytes_max: 300_000,
        unpacked_bytes_max: 200_000,
        line_bytes_max: 10_000,
        ..UploadLimits::default()
    };
    let server = Server::start_with(limits);
    // A table of valid rows that unpacks to 4 MB from some kilobytes.
    let rows = gzip("1,2,0\n".repeat(700_000).as_bytes());
    assert!(rows.len() < 30_000);
    let problem = server.upload(&classes("csv"), &[("table", rows)]).problem(422);
    assert_eq!(problem["field"], "table.unpacked_bytes", "{problem}");
    assert_eq!(problem["limit"], 200_000);
    // One line that never ends.
    let line = gzip("1".repeat(150_000).as_bytes());
    let problem = server.upload(&classes("csv"), &[("table", line)]).problem(422);
    assert_eq!(
        (&problem["field"], &problem["limit"]),
        (&json!("table.line_bytes"), &json!(10_000))
    );
    // A quote that is never closed must not collect the lines that follow it.
    let lines = "1,2,0\n".repeat(20_000);
    let table = format!("a,b,c\n1,2,\"0\n{lines}");
    let problem = server.upload(&classes("csv"), &[("table", gzip(table.as_bytes()))]).problem(422);
    assert_eq!(problem["field"], "table[0][2]", "{problem}");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains("\"\\\"0\""), "a field ends with its line: {detail}");
    let table = format!("\"a,b,c\n{lines}");
    let answer = server.upload(&classes("csv"), &[("table", gzip(table.as_bytes()))]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let accepted = server.blob_count();
    // Lines that a quote would join into one field.
    let quoted = gzip(format!("\"{}", "\n".repeat(199_000)).as_bytes());
    let problem = server.upload(&classes("csv"), &[("table", quoted)]).problem(422);
    assert_eq!(problem["field"], "table.shape", "{problem}");
    // An archive of a thousand files and one.
    let names: Vec<String> = (0..1001).map(|i| i.to_string()).collect();
    let many: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), vec![])).collect();
    let problem = server.upload(&classes("npz"), &[("table", npz(&many))]).problem(422);
    assert_eq!(problem["field"], "table.entries", "{problem}");
    // An archive whose entry unpacks to more than it may.
    let zeros = npy("|u1", "(4000, 1000)", &[0; 4_000_000]);
    let zeros = npz(&[("train_x", zeros), ("train_y", npy("|u1", "(4000,)", &[0; 4000]))]);
    assert!(zeros.len() < 30_000);
    let problem = server.upload(&classes("npz"), &[("table", zeros)]).problem(422);
    assert_eq!(problem["field"], "train_x.unpacked_bytes", "{problem}");
    // An IDX file whose header promises 4 MB.
    let zeros = gzip(&idx(8, &[4000, 1000], &[0; 4_000_000]));
    let y = idx(8, &[4000], &[0; 4000]);
    let problem =
        server.upload(&classes("idx"), &[("train_x", zeros), ("train_y", y)]).problem(422);
    assert_eq!(problem["field"], "train_x.unpacked_bytes", "{problem}");
    // A body over the limit.
    let large = vec![0; 300_000];
    let problem = server.upload(&classes("idx"), &[("train_x", large)]).problem(413);
    assert_eq!(problem["limit"], 300_000);
    assert_eq!(server.blob_count(), accepted);
    // And the server still works.
    assert_eq!(server.upload(&classes("idx"), &small_idx()).status, 201);
}

#[test]
fn equal_rows_share_blobs_and_a_failed_upload_takes_none_away() {
    let server = Server::start();
    let first = server.small_dataset();
    let blobs = server.blob_count();
    let second = server.small_dataset();
    assert_ne!(first, second);
    assert_eq!(server.blob_count(), blobs);
    // Its training rows are stored already; its test rows are wrong.
    let mut files = small_idx();
    files[3].1 = idx(8, &[TEST as u32], &[9; TEST]);
    server.upload(&classes("idx"), &files).problem(422);
    assert_eq!(server.rows(&first, false).2, TRAIN as u32);
}

#[test]
fn a_key_has_its_share_of_bytes() {
    let server = Server::start();
    let x = idx(8, &[5000, 1000], &vec![3; 5_000_000]);
    let y = idx(8, &[5000], &[0; 5000]);
    let files = [("train_x", gzip(&x)), ("train_y", y)];
    assert_eq!(server.upload(&classes("idx"), &files).status, 201);
    let problem = server.upload(&classes("idx"), &files).problem(429);
    assert_eq!(problem["limit"], 8 << 20, "{problem}");
    assert!(problem["found"].as_u64() < Some(8 << 20), "what it has, without the new one");
    assert_eq!(server.get("/v1/datasets").json()["datasets"].as_array().map(Vec::len), Some(1));
}
