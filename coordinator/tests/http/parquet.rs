//! Tables as Parquet. The files were written by Apache Arrow's Python library
//! with the rows of [`COLUMNS`].

use crate::server::files::gzip;
use crate::server::{Server, id};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{DoubleType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use raven_coordinator::dataset::UploadLimits;
use serde_json::{Value, json};
use std::sync::Arc;

/// Row groups of 4 rows, and with columns of times and of lists.
const SNAPPY: &[u8] = include_bytes!("../server/parquet/people.snappy.parquet");
/// Data pages of the second form.
const ZSTD: &[u8] = include_bytes!("../server/parquet/people.zstd.parquet");
/// Without dictionaries.
const GZIP: &[u8] = include_bytes!("../server/parquet/people.gzip.parquet");

/// The same rows as text.
const COLUMNS: &str = "age,city,height,member,big,buys\n\
    20,Paris,1.5,1,4294967295,yes\n\
    ,Rome,1.7,0,1,no\n\
    40,Paris,,1,2,yes\n\
    30,,1.6,0,3,no\n\
    30,Rome,1.6,0,4,no\n\
    30,Rome,1.6,0,5,maybe\n\
    30,Paris,1.6,1,6,no\n\
    30,Rome,1.6,0,7,no\n\
    ,Oslo,2.0,1,8,yes\n\
    90,Rome,1.0,0,9,no\n";

fn spec(format: &str, columns: Value) -> Value {
    json!({"name": "people", "format": format, "target": "classes", "target_column": "buys",
           "columns": columns})
}

fn ignoring() -> Value {
    json!({"seen": {"kind": "ignore"}, "tags.list.element": {"kind": "ignore"}})
}

fn taken(server: &Server, spec: &Value, table: &[u8]) -> Value {
    let answer = server.upload(spec, &[("table", table.to_vec())]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

#[test]
fn every_packing_gives_the_rows_that_text_gives() {
    let server = Server::start();
    let text = taken(&server, &spec("csv", json!({})), COLUMNS.as_bytes());
    for (name, file, columns) in [
        ("zstd", ZSTD.to_vec(), json!({})),
        ("gzip", GZIP.to_vec(), json!({})),
        ("packed once more", gzip(ZSTD), json!({})),
        ("snappy", SNAPPY.to_vec(), ignoring()),
    ] {
        let facts = taken(&server, &spec("parquet", columns), &file);
        assert_eq!(facts["format"], "parquet");
        for field in ["features", "target", "labels", "train_rows", "test_rows"] {
            assert_eq!(facts[field], text[field], "{name}: {field}");
        }
        for test in [false, true] {
            assert_eq!(server.rows(id(&facts), test), server.rows(id(&text), test), "{name}");
        }
        let named = |facts: &Value| -> Vec<Value> {
            let columns = facts["table"]["columns"].as_array().expect("columns").clone();
            columns.into_iter().filter(|column| column["kind"] != "ignored").collect()
        };
        assert_eq!(named(&facts), named(&text), "{name}");
    }
}

#[test]
fn files_are_refused_by_column_and_rule() {
    let server = Server::start();
    let cut = ZSTD[..ZSTD.len() - 100].to_vec();
    let long_footer = {
        let mut file = ZSTD.to_vec();
        let at = file.len() - 8;
        file[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        file
    };
    let cases = [
        (json!({}), SNAPPY.to_vec(), "table[][5]", "(\"seen\") must be of numbers or text"),
        (
            json!({"seen": {"kind": "ignore"}}),
            SNAPPY.to_vec(),
            "table[][6]",
            "a flat column, or ignored",
        ),
        (json!({}), b"PAR1".to_vec(), "table.magic", "not a Parquet file"),
        (json!({}), cut, "table.magic", "not a Parquet file"),
        (json!({}), long_footer, "table.metadata_bytes", "exceeds the limit of 16777216"),
        (
            json!({"city": {"kind": "number"}}),
            ZSTD.to_vec(),
            "table[0][1]",
            "\"Paris\" must be a number",
        ),
    ];
    for (columns, file, field, rule) in cases {
        let problem = server.upload(&spec("parquet", columns), &[("table", file)]).problem(422);
        assert_eq!(problem["field"], field, "{problem}");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(rule), "{detail:?} lacks {rule:?}");
    }
    assert_eq!(server.blob_count(), 0, "a refused upload leaves no blobs");
}

#[test]
fn pages_that_unpack_to_too_much_are_not_unpacked() {
    let limits = UploadLimits { unpacked_bytes_max: 300, ..UploadLimits::default() };
    let server = Server::start_with(limits);
    let answer = server.upload(&spec("parquet", json!({})), &[("table", GZIP.to_vec())]);
    let problem = answer.problem(422);
    assert_eq!(
        (&problem["field"], &problem["limit"]),
        (&json!("table.unpacked_bytes"), &json!(300))
    );
}

/// A column of zeros in one page, and a target.
fn zeros(rows: usize) -> Vec<u8> {
    let schema = parse_message_type("message m { REQUIRED DOUBLE x; REQUIRED INT32 y; }");
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_data_page_size_limit(usize::MAX)
        .set_data_page_row_count_limit(usize::MAX);
    let mut file = Vec::new();
    let schema = Arc::new(schema.expect("a schema"));
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(properties.build()))
        .expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let mut x = group.next_column().expect("a column").expect("x");
    x.typed::<DoubleType>().write_batch(&vec![0.0; rows], None, None).expect("written");
    x.close().expect("closed");
    let mut y = group.next_column().expect("a column").expect("y");
    y.typed::<Int32Type>().write_batch(&vec![1; rows], None, None).expect("written");
    y.close().expect("closed");
    group.close().expect("closed");
    writer.close().expect("closed");
    file
}

#[test]
fn a_page_that_unpacks_to_eighty_megabytes_is_refused_by_its_header() {
    let server = Server::start();
    let spec = json!({"name": "z", "format": "parquet", "target": "classes", "classes": 2});
    assert_eq!(server.upload(&spec, &[("table", zeros(1000))]).status, 201);
    let bomb = zeros(10_000_000);
    assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
    let problem = server.upload(&spec, &[("table", bomb)]).problem(422);
    assert_eq!(
        (&problem["field"], &problem["limit"], &problem["found"]),
        (&json!("table.page_bytes"), &json!(64 << 20), &json!(80_000_000))
    );
}

/// Whatever byte is wrong, the answer is a data set or a refusal, and never a failure.
#[test]
fn a_wrong_byte_anywhere_harms_nobody() {
    let server = Server::start();
    let mut refused = 0;
    for (file, columns) in [(ZSTD, json!({})), (SNAPPY, ignoring())] {
        let spec = spec("parquet", columns);
        for at in (0..file.len()).step_by(7) {
            for wrong in [0xff, file[at] ^ 1] {
                let mut damaged = file.to_vec();
                damaged[at] = wrong;
                let answer = server.upload(&spec, &[("table", damaged)]);
                // Not every byte matters.
                if answer.status != 201 {
                    let problem = answer.problem(422);
                    assert!(problem["field"].is_string(), "byte {at}: {problem}");
                    refused += 1;
                }
            }
        }
    }
    println!("{refused} damaged files refused");
    assert!(refused > 200, "{refused}");
    assert_eq!(server.get("/healthz").status, 200);
}
