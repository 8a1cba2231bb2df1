"""Image classification: VGG, ResNet and DenseNet, small on digits, the paper's on CIFAR and ImageNet from a folder."""
