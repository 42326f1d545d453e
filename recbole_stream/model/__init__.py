"""The backbone, TIGER and STREAM-Rec as plain torch modules."""
