//! What is generated from what `phx` knows about itself: completions and manual pages from its
//! definition, the schema of a file of connections from the keys that are read.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;
use phx_tokio::Connections;

use crate::args::Cli;
use crate::exit::Failed;

/// Prints a script that completes `phx` in a shell.
pub(crate) fn completions(shell: Shell) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "phx", &mut script);
    print(&script)
}

/// Prints the manual page of `phx`, or of one of its commands.
pub(crate) fn man(command: Option<&str>) -> Result<(), Failed> {
    let mut phx = Cli::command();
    phx.build();
    let page = match command {
        None => phx,
        // It calls itself phx-run, as `man phx-run` wants.
        Some(name) => match phx.find_subcommand(name) {
            Some(found) => found.clone(),
            None => return Err(Failed::Usage(format!("there is no command {name:?}"))),
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
    match out.write_all(text).and_then(|()| out.flush()) {
        // Nobody reads all of it: `phx man | head`.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failed::Local(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}
