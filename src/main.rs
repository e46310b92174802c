//! The `ofs` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = color_eyre::install() {
        eprintln!("ofs: {error}");
    }
    ofs::cli::main()
}
