"""What a ticket is worth: Definition 3 (`verdicts`), `intervals`, and figures of all kinds."""
