from mbbench.testing import BackendContract


class TestNcnn(BackendContract):
    name = "ncnn"
