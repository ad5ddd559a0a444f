//! Uploads, good ones to be broken by tests.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{Cursor, Write};

pub const TRAIN: usize = 100;
pub const TEST: usize = 20;
pub const SIDE: usize = 8;
pub const CLASSES: usize = 4;

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

pub fn idx(code: u8, shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, code, shape.len() as u8];
    for extent in shape {
        file.extend_from_slice(&extent.to_be_bytes());
    }
    file.extend_from_slice(data);
    file
}

/// Row `i` is filled with `i`, but for its first byte, which is its label.
pub fn pixels(first: usize, rows: usize) -> Vec<u8> {
    let row = |i: usize| {
        (0..SIDE * SIDE).map(move |at| if at == 0 { i % CLASSES } else { i % 256 } as u8)
    };
    (first..first + rows).flat_map(row).collect()
}

pub fn labels(first: usize, rows: usize) -> Vec<u8> {
    (first..first + rows).map(|i| (i % CLASSES) as u8).collect()
}

pub fn images(first: usize, rows: usize) -> Vec<u8> {
    idx(8, &[rows as u32, SIDE as u32, SIDE as u32], &pixels(first, rows))
}

pub fn small_idx() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("train_x", images(0, TRAIN)),
        ("train_y", gzip(&idx(8, &[TRAIN as u32], &labels(0, TRAIN)))),
        ("test_x", gzip(&images(TRAIN, TEST))),
        ("test_y", idx(8, &[TEST as u32], &labels(TRAIN, TEST))),
    ]
}

pub fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

pub fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(format!("{name}.npy"), options).expect("an entry");
        archive.write_all(bytes).expect("written");
    }
    archive.finish().expect("an archive").into_inner()
}

pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

pub fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}
