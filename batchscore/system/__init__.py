"""The operating system: durable files, the terminal, memory, cores."""
