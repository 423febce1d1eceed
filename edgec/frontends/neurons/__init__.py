"""Networks with neurons of snnTorch or spikingjelly to graphs."""
