"""The machine underneath: durable files, the terminal, memory, cores."""
