//! Generated output: shell completions and manual pages from the command line's definition, and the
//! JSON Schema of a file of connections.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;
use phx_tokio::Connections;

use crate::args::Cli;
use crate::exit::Failed;
use crate::output::written;

/// Prints a completion script for a shell.
pub(crate) fn completions(shell: Shell) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "phx", &mut script);
    print(&script)
}

/// Prints the manual page of `phx` or of one of its commands.
pub(crate) fn man(command: Option<&str>) -> Result<(), Failed> {
    let mut phx = Cli::command();
    phx.build();
    let page = match command {
        None => phx,
        // The page is named phx-run, as `man phx-run` expects.
        Some(name) => match phx.find_subcommand(name) {
            Some(found) => found.clone(),
            None => return Err(Failed::Usage(format!("unknown command {name:?}"))),
        },
    };
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(page).render(&mut text);
    rendered.map_err(|error| Failed::Local(error.to_string()))?;
    print(&text)
}

/// Prints the JSON Schema of a file of connections.
pub(crate) fn schema() -> Result<(), Failed> {
    print(format!("{:#}\n", Connections::json_schema()).as_bytes())
}

fn print(text: &[u8]) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    written(out.write_all(text).and_then(|()| out.flush())).map(drop)
}
