# Shortcuts; the project's two commands are in README.md and need no `just`.

# Everything the gate runs.
test:
    cargo xtask test

# A whole network on this machine, its main job, then the proof.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# The same network kept running in ./devnet.
devnet *ARGS:
    cargo run --release -- devnet {{ARGS}}

# Licences, sources and duplicates of dependencies.
deny:
    cargo deny check licenses bans sources
