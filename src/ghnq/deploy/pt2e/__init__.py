"""torch.export programs in torchao's pt2e form: writer, reader, file, lowering."""
