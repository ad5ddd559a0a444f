//! Zipped folders of images: their classes, sizes and colours, and archives
//! that mean harm.

use crate::server::files::gzip;
use crate::server::{Server, id};
use raven_coordinator::dataset::UploadLimits;
use serde_json::{Value, json};
use std::io::{Cursor, Write};

const GREY_JPEG: &[u8] = include_bytes!("../server/images/grey.jpg");
const RED_JPEG: &[u8] = include_bytes!("../server/images/red.jpg");
const CMYK_JPEG: &[u8] = include_bytes!("../server/images/cmyk.jpg");

fn png(colour: png::ColorType, size: [u32; 2], bytes: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size[1], size[0]);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(bytes).expect("pixels");
    writer.finish().expect("finished");
    file
}

/// A grey image of one value.
fn grey(size: [u32; 2], value: u8) -> Vec<u8> {
    png(png::ColorType::Grayscale, size, &vec![value; (size[0] * size[1]) as usize])
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = zip::write::SimpleFileOptions::default();
        if name.ends_with('/') {
            archive.add_directory(*name, options).expect("a folder");
            continue;
        }
        archive.start_file(*name, options).expect("an entry");
        archive.write_all(bytes).expect("written");
    }
    archive.finish().expect("an archive").into_inner()
}

fn spec(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = json!({"name": "pets", "format": "images", "target": "classes"});
    change(&mut spec);
    spec
}

fn taken(server: &Server, spec: &Value, archive: Vec<u8>) -> Value {
    let answer = server.upload(spec, &[("archive", archive)]);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

/// Pixels and labels of one part, in order.
fn rows(server: &Server, facts: &Value, test: bool) -> Vec<(Vec<u8>, i32)> {
    let (x, y, count) = server.rows(id(facts), test);
    if count == 0 {
        return Vec::new();
    }
    let labels = y.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().expect("4")));
    x.chunks_exact(x.len() / count as usize).map(<[u8]>::to_vec).zip(labels).collect()
}

#[test]
fn folders_are_classes_and_their_images_are_mixed() {
    let server = Server::start();
    let names: Vec<(String, Vec<u8>)> = (0..40u8)
        .map(|i| {
            let class = if i < 20 { "dog" } else { "cat" };
            (format!("pets/{class}/{i}.png"), grey([4, 6], i))
        })
        .collect();
    let mut entries: Vec<(&str, &[u8])> =
        names.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    // What systems leave behind is no image.
    entries.extend([
        ("pets/", &b""[..]),
        ("__MACOSX/pets/dog/._1.png", b"junk"),
        ("pets/dog/.DS_Store", b"junk"),
    ]);
    let facts = taken(&server, &spec(|_| {}), zip(&entries));
    assert_eq!(facts["features"], json!({"dtype": "u8", "shape": [4, 6]}));
    assert_eq!(facts["target"], json!({"kind": "classes", "classes": 2}));
    assert_eq!(facts["labels"], json!(["cat", "dog"]));
    assert_eq!((&facts["train_rows"], &facts["test_rows"]), (&json!(32), &json!(8)));
    let [train, test] = [false, true].map(|test| rows(&server, &facts, test));
    let mut values: Vec<u8> = train.iter().chain(&test).map(|(pixels, _)| pixels[0]).collect();
    for (pixels, label) in train.iter().chain(&test) {
        assert_eq!(*pixels, vec![pixels[0]; 24]);
        assert_eq!(*label, i32::from(pixels[0] < 20));
    }
    for part in [&train, &test] {
        let dogs = part.iter().filter(|(_, label)| *label == 1).count();
        assert!(dogs > 0 && dogs < part.len(), "{dogs} of {}", part.len());
    }
    values.sort_unstable();
    assert_eq!(values, (0..40).collect::<Vec<u8>>());
    // The order is that of the paths' hashes, whatever the archive's.
    entries.reverse();
    let blobs = server.blob_count();
    taken(&server, &spec(|_| {}), gzip(&zip(&entries)));
    assert_eq!(server.blob_count(), blobs);
}

#[test]
fn folders_train_and_test_are_the_parts() {
    let server = Server::start();
    let image = |value| grey([2, 2], value);
    let [a, b, c] = [image(1), image(2), image(3)];
    let entries: [(&str, &[u8]); 3] =
        [("d/train/a/1.png", &a), ("d/train/b/1.png", &b), ("d/test/a/1.png", &c)];
    let facts = taken(&server, &spec(|s| s["classes"] = json!(2)), zip(&entries));
    assert_eq!((&facts["train_rows"], &facts["test_rows"]), (&json!(2), &json!(1)));
    assert_eq!(rows(&server, &facts, true), [(vec![3; 4], 0)]);
}

#[test]
fn colours_and_sizes_are_brought_together() {
    let server = Server::start();
    let red = png(png::ColorType::Rgb, [1, 1], &[255, 0, 0]);
    let clear = png(png::ColorType::Rgba, [1, 1], &[200, 100, 50, 128]);
    let dark = grey([1, 1], 7);
    let entries: [(&str, &[u8]); 3] = [("a/1.png", &red), ("a/2.png", &clear), ("b/1.png", &dark)];
    let everything = |facts: &Value| {
        let mut all: Vec<Vec<u8>> = [false, true]
            .into_iter()
            .flat_map(|test| rows(&server, facts, test))
            .map(|(pixels, _)| pixels)
            .collect();
        all.sort_unstable();
        all
    };
    let facts = taken(&server, &spec(|_| {}), zip(&entries));
    assert_eq!(facts["features"]["shape"], json!([3, 1, 1]));
    // Half transparent is half dark.
    assert_eq!(everything(&facts), [vec![7, 7, 7], vec![100, 50, 25], vec![255, 0, 0]]);
    let one = spec(|s| s["image"] = json!({"channels": 1}));
    let facts = taken(&server, &one, zip(&entries));
    assert_eq!(facts["features"]["shape"], json!([1, 1]));
    assert_eq!(everything(&facts), [[7], [62], [76]]);
    // Sizes.
    let [small, large] = [grey([2, 2], 9), grey([5, 3], 200)];
    let entries: [(&str, &[u8]); 2] = [("a/1.png", &small), ("b/1.png", &large)];
    for resize in ["nearest", "bilinear"] {
        let image = json!({"size": [3, 4], "resize": resize});
        let facts = taken(&server, &spec(|s| s["image"] = image), zip(&entries));
        assert_eq!(everything(&facts), [vec![9; 12], vec![200; 12]]);
    }
    let entries: [(&str, &[u8]); 2] = [("a/1.jpg", GREY_JPEG), ("b/1.jpeg", RED_JPEG)];
    let found = everything(&taken(&server, &spec(|_| {}), zip(&entries)));
    let near = |pixels: &[u8], expected: u8| {
        assert_eq!(pixels.len(), 64);
        let far = pixels.iter().filter(|pixel| pixel.abs_diff(expected) > 2).count();
        assert_eq!(far, 0, "{pixels:?} is not {expected}");
    };
    (0..3).for_each(|channel| near(&found[0][channel * 64..][..64], 200));
    for (channel, expected) in [250, 20, 30].into_iter().enumerate() {
        near(&found[1][channel * 64..][..64], expected);
    }
}

#[test]
fn archives_are_refused_by_entry_and_rule() {
    let server = Server::start();
    let good = grey([2, 2], 1);
    let other = grey([2, 3], 1);
    let cut = &good[..good.len() - 20];
    let nested = zip(&[("a/1.png", &good)]);
    let deep = format!("{}x.png", "f/".repeat(20));
    let huge = {
        // A header that promises 10^10 pixels.
        let mut file = good.clone();
        file[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
        let sum = flate2::Crc::new();
        let mut sum = sum;
        sum.update(&file[12..29]);
        file[29..33].copy_from_slice(&sum.sum().to_be_bytes());
        file
    };
    let pair = |path: &'static str, bytes: &[u8]| zip(&[("a/1.png", &good), (path, bytes)]);
    let cases: Vec<(Value, Vec<u8>, &str, &str)> = vec![
        (spec(|_| {}), pair("b/1.png", &other), "archive[\"", "pixels as in"),
        (spec(|_| {}), pair("b/1.png", cut), "archive[\"b/1.png\"]", "can be decoded"),
        (spec(|_| {}), pair("b/notes.txt", b"hello"), "archive[\"b/notes.txt\"]", "PNG or JPEG"),
        (spec(|_| {}), pair("b/more.zip", &nested), "archive[\"b/more.zip\"]", "PNG or JPEG"),
        (spec(|_| {}), pair("b/1.jpg", CMYK_JPEG), "archive[\"b/1.jpg\"]", "grey, YCbCr or RGB"),
        (spec(|_| {}), pair("b/1.png", &huge), "archive[\"b/1.png\"]", "at most 33554432 pixels"),
        (spec(|_| {}), pair("1.png", &good), "archive[\"1.png\"]", "folder of its class"),
        (spec(|_| {}), pair("train/b/1.png", &good), "archive[\"a/1.png\"]", "below train or test"),
        (spec(|_| {}), pair("a/2.png", &good), "archive.shape", "two classes"),
        (spec(|_| {}), zip(&[(deep.as_str(), &good)]), "archive[", "at most 15 folders"),
        (spec(|_| {}), zip(&[]), "archive.shape", "at least one image"),
        (spec(|_| {}), b"PK\x03\x04".to_vec(), "archive.archive", "not a zip"),
        (
            spec(|s| s["classes"] = json!(3)),
            pair("b/1.png", &good),
            "spec.classes",
            "2, the number",
        ),
        (spec(|s| s["target"] = json!("values")), nested.clone(), "spec.target", "classes"),
        (
            spec(|s| s["image"] = json!({"channels": 2})),
            nested.clone(),
            "spec.image.channels",
            "1 or 3",
        ),
        (
            spec(|s| s["image"] = json!({"size": [0, 4]})),
            nested.clone(),
            "spec.image.size",
            "at least 1",
        ),
        (
            spec(|s| s["image"] = json!({"size": [4000, 4000]})),
            pair("b/1.png", &good),
            "archive.sample_elements",
            "exceeds the limit",
        ),
        (spec(|s| s["standardize"] = json!(true)), nested.clone(), "spec.standardize", "absent"),
    ];
    for (spec, archive, field, rule) in cases {
        let problem = server.upload(&spec, &[("archive", archive)]).problem(422);
        let found = problem["field"].as_str().expect("a field");
        assert!(found.starts_with(field), "{field}: {problem}");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(rule), "{detail:?} lacks {rule:?}");
    }
    let problem = server.upload(&spec(|_| {}), &[("table", good)]).problem(422);
    assert_eq!(problem["field"], "table", "{problem}");
    assert_eq!(server.blob_count(), 0, "a refused upload leaves no blobs");
}

#[test]
fn bombs_stop_at_their_limits() {
    let limits = UploadLimits { unpacked_bytes_max: 100_000, ..UploadLimits::default() };
    let server = Server::start_with(limits);
    // An image file of many zeros behind its end, small when packed.
    let mut padded = grey([2, 2], 1);
    padded.resize(90_000, 0);
    let archive = zip(&[("a/1.png", &padded), ("b/1.png", &padded)]);
    assert!(archive.len() < 2_000);
    let problem = server.upload(&spec(|_| {}), &[("archive", archive)]).problem(422);
    assert_eq!(
        (&problem["field"], &problem["limit"]),
        (&json!("archive.unpacked_bytes"), &json!(100_000))
    );
    // One entry that unpacks to a hundred megabytes.
    let server = Server::start();
    let mut padded = grey([2, 2], 1);
    padded.resize(100 << 20, 0);
    let archive = zip(&[("a/1.png", &padded), ("b/1.png", &padded)]);
    assert!(archive.len() < 300_000);
    let problem = server.upload(&spec(|_| {}), &[("archive", archive)]).problem(422);
    assert_eq!(
        (&problem["field"], &problem["limit"]),
        (&json!("archive.image_bytes"), &json!(64 << 20))
    );
    // An archive that says it has more entries than any.
    let mut many = zip(&[("a/1.png", &grey([2, 2], 1))]);
    let end = many.windows(4).rposition(|bytes| bytes == b"PK\x05\x06").expect("there");
    many[end + 12..end + 16].copy_from_slice(&u32::MAX.to_le_bytes());
    let problem = server.upload(&spec(|_| {}), &[("archive", many)]).problem(422);
    assert_eq!(problem["field"], "archive.directory_bytes", "{problem}");
    assert_eq!(server.blob_count(), 0);
}
