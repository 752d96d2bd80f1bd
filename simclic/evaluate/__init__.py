"""How good a frozen encoder is: linear evaluation and fine-tuning (Section 4.2)."""
