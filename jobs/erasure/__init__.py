"""The right to erasure: what names a person, how records leave raw files, how history leaves Delta tables."""
