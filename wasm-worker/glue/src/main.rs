//! Turns a compiled kernel into what a page loads: `raven-glue IN.wasm OUT_DIR [NAME]`
//! writes `NAME.wasm`, `NAME.js` (an ES module) and its types, `raven_kernel` where
//! no name is given, and prints the kernel id, the blake3 of the module.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (input, out_dir, name) = match arguments.as_slice() {
        [input, out_dir] => (input, out_dir, "raven_kernel"),
        [input, out_dir, name] => (input, out_dir, name.as_str()),
        _ => {
            eprintln!("usage: raven-glue IN.wasm OUT_DIR [NAME]");
            return ExitCode::from(2);
        }
    };
    match generate(input, Path::new(out_dir), name) {
        Ok(kernel_id) => {
            println!("{kernel_id}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("raven-glue: {reason:#}");
            ExitCode::FAILURE
        }
    }
}

fn generate(input: &str, out_dir: &Path, name: &str) -> Result<String, Box<dyn Error>> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(input).out_name(name).typescript(true);
    // Both sections only describe the machine that builds.
    bindgen.remove_name_section(true).remove_producers_section(true);
    bindgen.web(true)?.generate(out_dir)?;
    // The generator marks the module as a background file of the script; here
    // it is the product, loaded without the script too.
    let generated = format!("{name}_bg.wasm");
    let module = out_dir.join(format!("{name}.wasm"));
    fs::rename(out_dir.join(&generated), &module)?;
    fs::remove_file(out_dir.join(format!("{generated}.d.ts")))?;
    let script = out_dir.join(format!("{name}.js"));
    let text = fs::read_to_string(&script)?;
    fs::write(&script, text.replace(&generated, &format!("{name}.wasm")))?;
    Ok(blake3::hash(&fs::read(&module)?).to_hex().to_string())
}
