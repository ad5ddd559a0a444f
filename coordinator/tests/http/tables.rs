//! Tables: categories, missing values and standardised columns, and refusals
//! that name row, column and rule.

use crate::server::files::*;
use crate::server::{Server, id};
use serde_json::{Value, json};
use std::process::Command;

/// The rows of one part: features and the bytes of the targets.
fn rows(server: &Server, facts: &Value, test: bool) -> (Vec<Vec<f32>>, Vec<u8>) {
    let (x, y, _) = server.rows(id(facts), test);
    let floats = |bytes: &[u8]| {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
    };
    let width = facts["features"]["shape"][0].as_u64().expect("a width") as usize * 4;
    (x.chunks_exact(width).map(floats).collect(), y)
}

fn labels_of(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
}

fn taken(server: &Server, spec: &Value, table: &str) -> Value {
    let answer = server.upload(spec, &[("table", table.as_bytes().to_vec())]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

/// Ten rows, the last two of which are held out.
const PEOPLE: &str = "\u{feff}id,age,city,height,buys\r\n\
    1,20,\"Paris, FR\",1.5,yes\r\n\
    2,,Rome,1.7,no\r\n\
    3,40,Paris,NA,yes\r\n\
    4,30,Rome,1.6,no\r\n\
    5,30,?,1.6,no\r\n\
    6,30,Paris,1.6,maybe\r\n\
    7,30,Rome,1.6,no\r\n\
    8,30,\"Paris, FR\",1.6,no\r\n\
    9,null,Oslo,2.0,yes\r\n\
    10,90,,1.0,no\r\n";

fn people() -> Value {
    json!({"name": "people", "format": "csv", "target": "classes", "target_column": "buys",
           "columns": {"id": {"kind": "ignore"}, "height": {"standardize": true}}})
}

#[test]
fn words_and_gaps_become_features_and_are_reported() {
    let server = Server::start();
    let facts = taken(&server, &people(), PEOPLE);
    assert_eq!((&facts["train_rows"], &facts["test_rows"]), (&json!(8), &json!(2)));
    assert_eq!(facts["features"], json!({"dtype": "f32", "shape": [5]}));
    assert_eq!(facts["target"], json!({"kind": "classes", "classes": 3}));
    assert_eq!(facts["labels"], json!(["maybe", "no", "yes"]));
    let columns = facts["table"]["columns"].as_array().expect("columns");
    assert_eq!(facts["table"]["header"], true);
    assert_eq!(columns[0], json!({"name": "id", "kind": "ignored"}));
    // The mean of the seven ages among the training rows, not of the 90 held out.
    let mean = 210.0 / 7.0;
    assert_eq!(
        columns[1],
        json!({"name": "age", "kind": "number", "feature": 0, "imputed": mean,
               "missing": {"train": 1, "test": 1}})
    );
    // Paris and Rome: three of Rome, two of each other; Oslo is held out.
    assert_eq!(
        columns[2],
        json!({"name": "city", "kind": "category", "feature": 1,
               "categories": ["Paris", "Paris, FR", "Rome"], "imputed": "Rome",
               "missing": {"train": 1, "test": 1}, "unknown": 1})
    );
    let height = &columns[3];
    let near = |value: &Value, expected: f64| {
        let value = value.as_f64().expect("a number");
        assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
    };
    near(&height["imputed"], 1.6);
    near(&height["standard"]["mean"], 1.6);
    let deviation = (0.02f64 / 7.0).sqrt();
    near(&height["standard"]["deviation"], deviation);
    assert_eq!(
        columns[4],
        json!({"name": "buys", "kind": "target", "labels": ["maybe", "no", "yes"]})
    );
    let (x, y) = rows(&server, &facts, false);
    let low = (-0.1 / deviation) as f32;
    assert_eq!(x.len(), 8);
    assert_eq!(x[0][..4], [20.0, 0.0, 1.0, 0.0]);
    assert!((x[0][4] - low).abs() < 1e-5, "{} is not {low}", x[0][4]);
    assert_eq!(x[1][..4], [30.0, 0.0, 0.0, 1.0]);
    assert_eq!(x[2][..4], [40.0, 1.0, 0.0, 0.0]);
    assert!(x[2][4].abs() < 1e-6, "a missing height is the mean: {}", x[2][4]);
    assert_eq!(x[4][..4], [30.0, 0.0, 0.0, 1.0]);
    assert_eq!(labels_of(&y), [2, 1, 2, 1, 1, 0, 1, 1]);
    let (x, y) = rows(&server, &facts, true);
    assert_eq!(x[0][..4], [30.0, 0.0, 0.0, 0.0], "Oslo is none of the categories");
    assert_eq!(x[1][..4], [90.0, 0.0, 0.0, 1.0]);
    assert_eq!(labels_of(&y), [2, 1]);
    // The list leaves the columns out.
    let listed = &server.get("/v1/datasets").json()["datasets"][0];
    assert_eq!((&listed["id"], &listed["table"]), (&facts["id"], &Value::Null));
    let shown = server.get(&format!("/v1/datasets/{}", facts["id"].as_str().expect("an id")));
    assert_eq!(shown.json(), facts);
}

#[test]
fn the_same_table_gives_the_same_bytes() {
    let server = Server::start();
    let first = taken(&server, &people(), PEOPLE);
    let blobs = server.blob_count();
    let unix = PEOPLE.replace("\r\n", "\n");
    let answer = server.upload(&people(), &[("table", gzip(unix.as_bytes()))]);
    assert_eq!(answer.json()["table"], first["table"]);
    assert_eq!(server.blob_count(), blobs, "equal rows are equal blobs");
}

#[test]
fn columns_go_by_position_where_they_have_no_names() {
    let server = Server::start();
    // Numbers that are names of things, and a first line that is no header.
    let table = "10,a,0\n20,b,1\n10,a,1\n30,b,0\n";
    let spec = json!({"name": "d", "format": "csv", "target": "classes", "classes": 2,
                      "header": false, "test_fraction": 0.5, "standardize": true,
                      "columns": {"0": {"kind": "category"}}});
    let facts = taken(&server, &spec, table);
    let columns = &facts["table"]["columns"];
    assert_eq!(
        columns[0],
        json!({"kind": "category", "feature": 0, "categories": ["10", "20"], "unknown": 1})
    );
    assert_eq!(columns[1]["categories"], json!(["a", "b"]));
    assert_eq!(columns[2], json!({"kind": "target"}));
    let (x, _) = rows(&server, &facts, false);
    assert_eq!(x, [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]);
    // A column that never changes is not divided by 0.
    let spec = json!({"name": "d", "format": "csv", "target": "values", "standardize": true});
    let facts = taken(&server, &spec, "5,1.5\n5,2.5\n5,3.5\n");
    assert_eq!(facts["table"]["columns"][0]["standard"], json!({"mean": 5.0, "deviation": 1.0}));
    assert_eq!(rows(&server, &facts, false).0, [[0.0], [0.0]]);
}

#[test]
fn a_word_in_row_59999_of_a_table_is_named_by_row_column_and_rule() {
    let server = Server::start();
    let mut table = String::from("width,height,class\n");
    table += &"1.5,2,1\n".repeat(59_999);
    table += "1.5,tall,1\n";
    for standardize in [false, true] {
        let spec = json!({"name": "d", "format": "csv", "target": "classes", "classes": 2,
                          "standardize": standardize});
        let answer = server.upload(&spec, &[("table", gzip(table.as_bytes()))]);
        let problem = answer.problem(422);
        assert_eq!(problem["field"], "table[59999][1]", "{problem}");
        assert_eq!(
            problem["detail"],
            "table: row 59999, column 1 (\"height\"): \"tall\" must be a number; words belong in \
             a column of kind category"
        );
    }
    assert_eq!(server.blob_count(), 0);
}

#[test]
fn tables_are_refused_by_place_and_rule() {
    let server = Server::start();
    let spec = |change: &dyn Fn(&mut Value)| {
        let mut spec = json!({"name": "d", "format": "csv", "target": "classes", "classes": 2});
        change(&mut spec);
        spec
    };
    let plain = "a,b,c\n1,2,0\n3,4,1\n5,6,0\n";
    let many: String = (0..1400).map(|i| format!("w{i},1,0\n")).collect();
    let long = format!("a,b,c\n{},1,0\nx,2,1\n", "w".repeat(201));
    type Change = dyn Fn(&mut Value);
    let same: &Change = &|_| {};
    let cases: Vec<(&Change, &str, &str, &str)> = vec![
        (
            &|s| s["missing"] = json!("refuse"),
            "a,b,c\n1,,0\n3,4,1\n",
            "table[0][1]",
            "missing values are refused",
        ),
        (
            &|s| s["missing"] = json!("refuse"),
            "a,b,c\nx,1,0\n,4,1\n",
            "table[1][0]",
            "missing values are refused",
        ),
        (same, "a,b,c\n1,2,\n3,4,1\n", "table[0][2]", "a target"),
        (
            same,
            "a,b,c\n1,,0\n3,,1\n5,6,0\n",
            "table[][1]",
            "at least one value in the training rows",
        ),
        (same, &many, "table[1000][0]", "at most 1000 categories"),
        (same, &long, "table[0][0]", "at most 200 bytes"),
        (same, "a,b,c\n1,2,0\n3,1e39,1\n", "table[1][1]", "finite"),
        (&|s| s["classes"] = json!(null), plain, "spec.classes", "where labels are numbers"),
        (
            &|s| s["columns"] = json!({"c": {"kind": "category"}, "a": {"kind": "ignore"}}),
            "a,b,c\n1,2,x\n3,4,y\n5,6,z\n",
            "spec.classes",
            "3, the labels",
        ),
        (&|s| s["columns"] = json!({"d": {"kind": "ignore"}}), plain, "spec.columns", "first line"),
        (&|s| s["columns"] = json!({"7": {"kind": "ignore"}}), plain, "spec.columns", "below 3"),
        (&|s| s["columns"] = json!({"c": {"kind": "ignore"}}), plain, "spec.columns", "the target"),
        (&|s| s["columns"] = json!({"a": {"kind": "text"}}), plain, "spec.columns.a.kind", "text"),
        (
            &|s| s["columns"] = json!({"a": {"kind": "ignore"}, "b": {"kind": "ignore"}}),
            plain,
            "table.shape",
            "one feature",
        ),
        (&|s| s["target_column"] = json!("d"), plain, "spec.target_column", "first line"),
        (
            &|s| s["target_column"] = json!("a"),
            "a,a,c\n1,2,0\n3,4,1\n",
            "spec.target_column",
            "one column has",
        ),
        (&|s| s["sample_shape"] = json!([3]), plain, "spec.sample_shape", "product is 2"),
        (&|s| s["header"] = json!(false), "1,2,0\n3,4,x\n", "table[1][2]", "a number"),
    ];
    for (change, table, field, rule) in cases {
        let answer = server.upload(&spec(change), &[("table", table.as_bytes().to_vec())]);
        let problem = answer.problem(422);
        assert_eq!(problem["field"], field, "{problem}");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(rule), "{detail:?} lacks {rule:?}");
    }
    assert_eq!(server.blob_count(), 0, "a refused upload leaves no blobs");
    let wide = format!("{}0\n", "1,".repeat(1 << 16));
    let problem = server.upload(&spec(same), &[("table", wide.into_bytes())]).problem(422);
    assert_eq!((&problem["field"], &problem["limit"]), (&json!("table.columns"), &json!(65_536)));
}

/// The script that goes with a model treats new rows as the data set did.
#[test]
fn the_script_encodes_rows_as_the_shards_hold_them() {
    let server = Server::start();
    let facts = taken(&server, &people(), PEOPLE);
    let folder = server.folder.path();
    let script = include_str!("../../src/http/load_model.py");
    std::fs::write(folder.join("load_model.py"), script).expect("written");
    std::fs::write(folder.join("rows.csv"), PEOPLE).expect("written");
    std::fs::write(folder.join("table.json"), facts["table"].to_string()).expect("written");
    let program = "import json, load_model as m\n\
        table = json.load(open('table.json'))\n\
        x, y = m.encode(m.read_csv('rows.csv', table['header']), table)\n\
        print(json.dumps([x.tolist(), y.tolist()]))";
    // As everywhere: `PYTHON`, or the one on the path; it needs NumPy.
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python).current_dir(folder).args(["-c", program]).output();
    let output = output.expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: (Vec<Vec<f32>>, Vec<f32>) = serde_json::from_slice(&output.stdout).expect("JSON");
    let (mut x, mut y) = rows(&server, &facts, false);
    let (held_x, held_y) = rows(&server, &facts, true);
    x.extend(held_x);
    y.extend(held_y);
    assert_eq!(found.0, x);
    assert_eq!(found.1, labels_of(&y).iter().map(|&label| label as f32).collect::<Vec<_>>());
}
