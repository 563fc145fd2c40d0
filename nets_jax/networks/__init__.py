"""Networks: `adapter` (what is asked of one), `layers` (their order), `initialisation`, `zoo`."""
