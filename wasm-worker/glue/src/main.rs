//! Turns the compiled kernel into what a page loads: `raven-glue IN.wasm OUT_DIR`
//! writes `raven_kernel.wasm`, `raven_kernel.js` (an ES module) and its types,
//! and prints the kernel id, the blake3 of the module.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, out_dir] = arguments.as_slice() else {
        eprintln!("usage: raven-glue IN.wasm OUT_DIR");
        return ExitCode::from(2);
    };
    match generate(input, Path::new(out_dir)) {
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

fn generate(input: &str, out_dir: &Path) -> Result<String, Box<dyn Error>> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(input).out_name("raven_kernel").typescript(true);
    // Both sections only describe the machine that builds.
    bindgen.remove_name_section(true).remove_producers_section(true);
    bindgen.web(true)?.generate(out_dir)?;
    // The generator marks the module as a background file of the script; here
    // it is the product, loaded without the script too.
    let (generated, module) =
        (out_dir.join("raven_kernel_bg.wasm"), out_dir.join("raven_kernel.wasm"));
    fs::rename(&generated, &module)?;
    fs::remove_file(out_dir.join("raven_kernel_bg.wasm.d.ts"))?;
    let script = out_dir.join("raven_kernel.js");
    let text = fs::read_to_string(&script)?;
    fs::write(&script, text.replace("raven_kernel_bg.wasm", "raven_kernel.wasm"))?;
    Ok(blake3::hash(&fs::read(&module)?).to_hex().to_string())
}
