"""A processor of one's own; `own-processor.toml` has it in its chain."""

import guerrilla
from guerrilla import Envelope, Reply


@guerrilla.processor("NoInvoices")
def no_invoices(envelope: Envelope) -> Reply | None:
    """Refuses every mail whose subject speaks of an invoice."""
    if "invoice" in envelope.subject.lower():
        return Reply.reject("5.7.1", "no invoices here")  # 550 5.7.1 no invoices here
    return None  # on to the next stage
